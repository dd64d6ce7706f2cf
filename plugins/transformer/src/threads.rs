//! Distribution of a batch to threads. Without padding, sequences are independent, so a batch is partitioned into blocks that
//! threads compute without waiting for each other. If the blocks would be unbalanced, as for a single text, all threads compute
//! each block together.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use plugin_sdk::LoadError;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Target number of tokens of a block: enough to saturate the processor's arithmetic units, few enough for the intermediate results
/// to fit in its cache.
const BLOCK_TOKENS: usize = 256;

/// Maximum load of the busiest thread relative to an even share. Above it, all threads compute together.
const TOLERANCE: f64 = 1.25;

/// Maximum number of threads of one batch. Larger values are certainly mistakes.
const MAX_THREADS: usize = 1024;

/// Returns the number of threads that compute a batch: the setting `threads`, or else the server's suggestion.
///
/// # Errors
/// The number is too large. The error names the setting.
pub fn thread_count(configured: Option<NonZeroUsize>, suggested: usize) -> Result<usize, LoadError> {
    let threads = configured.map_or(suggested, NonZeroUsize::get);
    if threads > MAX_THREADS {
        let message = format!("got {threads}, expected at most {MAX_THREADS}");
        return Err(LoadError::setting("threads", message));
    }
    Ok(threads)
}

/// The thread pools of one worker.
pub struct EncoderThreads {
    /// A pool of all threads.
    shared: ThreadPool,
    /// Pools of one thread each.
    single: Vec<ThreadPool>,
}

impl EncoderThreads {
    /// Starts a pool of `threads` threads and `threads` pools of one thread.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn new(threads: usize) -> Result<Self, LoadError> {
        let pool = |threads: usize| {
            ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|index| format!("encoder-{index}"))
                .build()
        };
        Ok(Self {
            shared: pool(threads)?,
            single: (0..threads).map(|_| pool(1)).collect::<Result<_, _>>()?,
        })
    }

    /// Calls `each` for blocks of sequences. `lengths` are the numbers of tokens of the sequences. `each` receives the indexes of
    /// the sequences of a block and returns one result for each. Returns the results in the order of the sequences.
    pub fn run<R: Send>(&self, lengths: &[usize], each: impl Fn(&[usize]) -> Vec<R> + Sync) -> Vec<R> {
        let (blocks, is_balanced) = partition(lengths, self.single.len());
        let results = if is_balanced {
            self.run_blocks(&blocks, &each)
        } else {
            self.shared
                .install(|| blocks.iter().map(|block| each(block)).collect())
        };
        let indexes = blocks.iter().flatten();
        let mut ordered: Vec<_> = indexes.zip(results.into_iter().flatten()).collect();
        ordered.sort_by_key(|(index, _)| **index);
        ordered.into_iter().map(|(_, result)| result).collect()
    }

    fn run_blocks<R: Send>(
        &self,
        blocks: &[Vec<usize>],
        each: &(impl Fn(&[usize]) -> Vec<R> + Sync),
    ) -> Vec<Vec<R>> {
        let next = AtomicUsize::new(0);
        let take_blocks = |pool: &ThreadPool| {
            pool.install(|| {
                let mut done = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(block) = blocks.get(index) else {
                        return done;
                    };
                    done.push((index, each(block)));
                }
            })
        };
        let done = self
            .shared
            .broadcast(|context| take_blocks(&self.single[context.index()]));
        let mut done: Vec<_> = done.into_iter().flatten().collect();
        done.sort_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, results)| results).collect()
    }
}

/// Partitions sequences into blocks with about the same number of tokens. Also returns whether the load of the threads is balanced
/// if each computes whole blocks.
fn partition(lengths: &[usize], threads: usize) -> (Vec<Vec<usize>>, bool) {
    let total: usize = lengths.iter().sum();
    let count = total
        .div_ceil(BLOCK_TOKENS)
        .next_multiple_of(threads)
        .clamp(1, lengths.len().max(1));
    let mut order: Vec<_> = (0..lengths.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(lengths[*index]));
    let mut blocks = vec![(0, Vec::new()); count];
    for index in order {
        let lightest = blocks.iter_mut().min_by_key(|(tokens, _)| *tokens);
        if let Some((tokens, block)) = lightest {
            *tokens += lengths[index];
            block.push(index);
        }
    }
    // Largest blocks first, so that the threads finish at about the same time.
    blocks.sort_by_key(|(tokens, _)| std::cmp::Reverse(*tokens));
    let mut loads = vec![0; threads];
    for (tokens, _) in &blocks {
        if let Some(load) = loads.iter_mut().min() {
            *load += tokens;
        }
    }
    let busiest = loads.into_iter().max().unwrap_or(0);
    let is_balanced = busiest as f64 <= total as f64 / threads as f64 * TOLERANCE;
    (blocks.into_iter().map(|(_, block)| block).collect(), is_balanced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_partitioned_evenly() {
        let (blocks, is_balanced) = partition(&[100, 30, 30, 40, 300, 100], 2);
        let tokens: Vec<usize> = blocks
            .iter()
            .map(|block| {
                block
                    .iter()
                    .map(|index| [100, 30, 30, 40, 300, 100][*index])
                    .sum()
            })
            .collect();
        assert_eq!((tokens, is_balanced), (vec![300, 100, 100, 100], true));
    }

    #[test]
    fn a_single_text_is_computed_by_all_threads_together() {
        assert_eq!(partition(&[20], 2), (vec![vec![0]], false));
        assert_eq!(partition(&[20], 1), (vec![vec![0]], true));
        assert!(!partition(&[200, 3], 2).1);
    }

    #[test]
    fn results_keep_the_order_of_the_sequences() {
        for threads in [1, 2, 3] {
            let threads = EncoderThreads::new(threads).expect("start threads");
            for count in [1, 2, 7, 100] {
                let lengths: Vec<_> = (0..count).map(|index| 1 + index * 37 % 250).collect();
                let results = threads.run(&lengths, <[usize]>::to_vec);
                assert_eq!(results, (0..count).collect::<Vec<_>>());
            }
        }
    }
}
