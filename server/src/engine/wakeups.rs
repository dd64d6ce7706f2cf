//! Wakes threads that wait for messages, without a lock that one of them could hold.
//!
//! A thread that finds no message starts to watch, looks for messages once more, and parks. The sender of a message wakes
//! one watching thread, if there is one; otherwise all are busy, and one of them will read the message before it parks.
//! (The channels that the messages travel through could block as well, but take a lock to do so: a thread of low scheduling
//! priority that holds it would stop the event loop.)

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::{self, Thread};

/// Threads by index, and which of them watch.
#[derive(Default)]
pub(super) struct Wakeups(Box<[Watcher]>);

#[derive(Default)]
struct Watcher {
    is_watching: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Wakeups {
    pub(super) fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| Watcher::default()).collect())
    }

    /// Number of threads.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Names the current thread. It must do so before it watches or is woken.
    pub(super) fn register(&self, index: usize) {
        let _ = self.0[index].thread.set(thread::current());
    }

    /// Lets a thread be woken by messages. The caller must look for messages again after this: one that was sent before may
    /// have woken nobody.
    pub(super) fn watch(&self, index: usize) {
        self.0[index].is_watching.store(true, Ordering::SeqCst);
        // Either the caller sees the message that was sent, or its sender sees that the thread watches.
        fence(Ordering::SeqCst);
    }

    /// Ends what [`watch`](Self::watch) began.
    pub(super) fn unwatch(&self, index: usize) {
        self.0[index].is_watching.store(false, Ordering::SeqCst);
    }

    /// Wakes a thread that watches, if there is one, after a message was sent.
    pub(super) fn notify(&self) {
        fence(Ordering::SeqCst);
        let watches = |watcher: &&Watcher| {
            watcher.is_watching.load(Ordering::SeqCst) && watcher.is_watching.swap(false, Ordering::SeqCst)
        };
        if let Some(watcher) = self.0.iter().find(watches) {
            watcher.wake();
        }
    }

    /// Wakes a thread, whether it watches or not.
    pub(super) fn wake(&self, index: usize) {
        self.0[index].wake();
    }

    /// Wakes all threads.
    pub(super) fn wake_all(&self) {
        self.0.iter().for_each(Watcher::wake);
    }
}

impl Watcher {
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}
