//! What open pages show, rendered once per second for all pages that show the same to clients with the same rights.
//!
//! The first page of a view starts a task that renders it from each frame of the feed; further pages follow the same task,
//! which ends after its last page. Pages receive cells as they are sent, so that a further page costs only comparing and
//! copying them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tokio::sync::watch;

use super::cells::Cells;
use super::history::write_point;
use super::model_page::Page;
use super::overview;
use super::requests::Rows;
use crate::api::live::{Frame, Frames, LiveFeed};
use crate::api::{Client, Failure, Rights};
use crate::http::monitoring::MAX_INLINE_MODELS;
use crate::http::offload::run_by_size;

/// Interval at which the plot of the latest batches changes, in seconds.
const BATCHES_INTERVAL: u64 = 5;

/// What a page shows.
#[derive(Clone, PartialEq)]
pub(super) enum Subject {
    Overview,
    Model(Page),
}

/// A subject at one moment, as it is sent.
pub(super) struct View {
    pub(super) unix_seconds: u64,
    /// Changes when pages have to be rendered again.
    pub(super) structure: u64,
    /// The latest second of the charts and its time.
    pub(super) point: Option<(u64, String)>,
    /// By their ids.
    pub(super) cells: Vec<SentCell>,
}

/// A cell as it is sent.
pub(super) struct SentCell {
    pub(super) id: String,
    /// Hash of its content.
    pub(super) hash: u64,
    /// A member of an object of JSON.
    pub(super) member: String,
}

impl SentCell {
    /// The cells, by their ids.
    pub(super) fn all(cells: &Cells) -> Vec<Self> {
        let cell = |(id, html): (&str, &str)| {
            let mut hasher = DefaultHasher::new();
            html.hash(&mut hasher);
            Self {
                id: id.to_owned(),
                hash: hasher.finish(),
                member: format!("{}:{}", json!(id), json!(html)),
            }
        };
        cells.iter().map(cell).collect()
    }
}

/// The views that pages follow.
#[derive(Default)]
pub(super) struct Views(Mutex<Vec<OpenView>>);

struct OpenView {
    subject: Subject,
    rights: Rights,
    sender: Arc<watch::Sender<Arc<View>>>,
}

impl Views {
    /// Follows a view. Its present state counts as a change.
    ///
    /// # Errors
    /// No thread can render it.
    pub(super) async fn follow(
        self: &Arc<Self>,
        feed: &Arc<LiveFeed>,
        subject: &Subject,
        client: Client,
    ) -> Result<watch::Receiver<Arc<View>>, Failure> {
        let rights = client.rights();
        if let Some(views) = self.find(subject, &rights) {
            return Ok(views);
        }
        // Before the first frame, so that none is missed.
        let frames = feed.frames();
        let renderer = Renderer {
            subject: subject.clone(),
            client,
            feed: feed.clone(),
            rows: Rows::default(),
        };
        let (renderer, first) = renderer.render(usize::MAX, |feed| Arc::new(feed.frame())).await?;
        let (sender, mut receiver) = watch::channel(first);
        receiver.mark_changed();
        let registered = Registered {
            views: self.clone(),
            sender: Arc::new(sender),
        };
        // Two pages that are opened at the same time can both get here. Each then follows its own task.
        self.lock().push(OpenView {
            subject: subject.clone(),
            rights,
            sender: registered.sender.clone(),
        });
        actix_web::rt::spawn(render_all(registered, frames, renderer));
        Ok(receiver)
    }

    fn find(&self, subject: &Subject, rights: &Rights) -> Option<watch::Receiver<Arc<View>>> {
        let open = self.lock();
        let found = open
            .iter()
            .find(|open| open.subject == *subject && open.rights == *rights)?;
        let mut views = found.sender.subscribe();
        views.mark_changed();
        Some(views)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OpenView>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A view that pages can find. Dropping it ends the streams of pages that follow it.
struct Registered {
    views: Arc<Views>,
    sender: Arc<watch::Sender<Arc<View>>>,
}

impl Registered {
    /// Removes the view if no page follows it. No page can begin to follow it in between.
    fn remove_if_unused(&self) -> bool {
        let mut open = self.views.lock();
        let is_unused = self.sender.receiver_count() == 0;
        if is_unused {
            open.retain(|open| !Arc::ptr_eq(&open.sender, &self.sender));
        }
        is_unused
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.views
            .lock()
            .retain(|open| !Arc::ptr_eq(&open.sender, &self.sender));
    }
}

/// Renders a view from each frame, until no page follows it or the server shuts down.
async fn render_all(registered: Registered, mut frames: Frames, mut renderer: Renderer) {
    while let Some(frame) = frames.next().await {
        if registered.remove_if_unused() {
            return;
        }
        let models = frame.models.len();
        let Ok((next, view)) = renderer.render(models, move |_| frame).await else {
            return;
        };
        renderer = next;
        registered.sender.send_replace(view);
    }
}

/// Renders one view.
struct Renderer {
    subject: Subject,
    client: Client,
    feed: Arc<LiveFeed>,
    rows: Rows,
}

impl Renderer {
    /// Renders a frame, on a blocking thread if it has more than a few models.
    async fn render(
        self,
        models: usize,
        frame: impl FnOnce(&LiveFeed) -> Arc<Frame> + Send + 'static,
    ) -> Result<(Self, Arc<View>), Failure> {
        let work = move || {
            let mut renderer = self;
            let frame = frame(&renderer.feed);
            let view = renderer.view(&frame);
            (renderer, Arc::new(view))
        };
        run_by_size(models, MAX_INLINE_MODELS, work).await
    }

    fn view(&mut self, frame: &Frame) -> View {
        let client = &self.client;
        let (cells, structure, point) = match &self.subject {
            Subject::Overview => (
                overview::cells(frame, client),
                overview::structure(frame, client),
                None,
            ),
            Subject::Model(page) => (
                page.cells(
                    frame,
                    client,
                    self.feed.notable_requests(),
                    &mut self.rows,
                    frame.unix_seconds.is_multiple_of(BATCHES_INTERVAL),
                ),
                page.structure(frame),
                point(frame, page),
            ),
        };
        View {
            unix_seconds: frame.unix_seconds,
            structure,
            point,
            cells: SentCell::all(&cells),
        }
    }
}

/// The latest second of the charts of a page.
fn point(frame: &Frame, page: &Page) -> Option<(u64, String)> {
    let model = frame
        .models
        .iter()
        .find(|model| model.entry.name() == page.model)?;
    let latest = model.latest.as_ref()?;
    let point = write_point(latest, latest.tasks.get(page.task?)?);
    Some((latest.unix_seconds, point.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Telemetry;
    use crate::metrics::{Buckets, Metrics};

    fn feed() -> Arc<LiveFeed> {
        let metrics = Metrics::new(Buckets::NONE).expect("the metrics are valid");
        LiveFeed::new(Arc::default(), Arc::new(Telemetry::of_metrics(Arc::new(metrics))))
    }

    async fn follow(
        views: &Arc<Views>,
        feed: &Arc<LiveFeed>,
        subject: &Subject,
    ) -> watch::Receiver<Arc<View>> {
        let followed = views.follow(feed, subject, Client::default()).await;
        followed.unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    #[actix_web::test]
    async fn pages_that_show_the_same_are_rendered_once() {
        let (feed, views) = (feed(), Arc::new(Views::default()));
        let model = Subject::Model(Page {
            model: "m".to_owned(),
            task: None,
        });
        let mut first = follow(&views, &feed, &Subject::Overview).await;
        let mut second = follow(&views, &feed, &Subject::Overview).await;
        let other = follow(&views, &feed, &model).await;
        assert_eq!(views.lock().len(), 2);
        for page in [&mut first, &mut second] {
            page.changed()
                .await
                .expect("its present state counts as a change");
            page.borrow_and_update();
        }
        feed.sample();
        first.changed().await.expect("the view is rendered");
        second.changed().await.expect("the view is rendered");
        let (first_view, second_view) = (first.borrow().clone(), second.borrow().clone());
        assert!(Arc::ptr_eq(&first_view, &second_view));
        assert_eq!(other.borrow().cells.len(), 0, "there is no such model");
    }

    #[actix_web::test]
    async fn a_view_without_pages_is_no_longer_rendered() {
        let (feed, views) = (feed(), Arc::new(Views::default()));
        let page = follow(&views, &feed, &Subject::Overview).await;
        drop(page);
        while !views.lock().is_empty() {
            feed.sample();
            tokio::task::yield_now().await;
        }
        // The next page starts again.
        let mut page = follow(&views, &feed, &Subject::Overview).await;
        assert!(page.changed().await.is_ok());
        // It ends when the server shuts down.
        page.borrow_and_update();
        feed.close();
        assert!(page.changed().await.is_err());
    }
}
