//! The stream of events of an open page.
//!
//! An event per second has the time, the cells that have changed, and on the page of a model the latest second of its charts:
//! `{"t": 1764510000, "c": {"0r": "12.4"}, "p": [...]}`. If the page has to be rendered again, because its models have changed,
//! the event has `"stale": true`.
//!
//! # Size
//! An event has at most [`MAX_EVENT`] bytes, so that a page receives at most 1 KB per second. Cells that do not fit are sent
//! with the next events, in turn.
//!
//! # End
//! A stream ends at shutdown, when the key of its session is no longer valid, and after [`MAX_AGE`]; then the page opens
//! another one.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use actix_web::web::{Bytes, Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::watch;

use super::cells::MAX_CELL;
use super::history::find_task;
use super::model_page::Page;
use super::views::{SentCell, Subject, View};
use super::{session, state};
use crate::api::live::{MAX_PAGES, OpenPage};
use crate::api::{Client, Code, Failure, ModelView, Rights};
use crate::clock;
use crate::http::request_headers::RequestHead;
use crate::http::respond;
use crate::http::server::Shared;

/// Maximum size of an event in bytes.
const MAX_EVENT: usize = 1000;

/// Maximum duration of a stream.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// The start of every stream: how long a browser waits before it connects again, in milliseconds.
const START: &str = "retry: 2000\n\n";

/// The page whose events are sent.
#[derive(Deserialize)]
pub(super) struct EventsQuery {
    /// The model; none for the overview.
    model: Option<String>,
    task: Option<String>,
    /// The structure that the page was rendered with.
    structure: Option<u64>,
}

/// `GET /ui/events`
pub(super) async fn stream(
    request: HttpRequest,
    shared: Data<Shared>,
    query: Query<EventsQuery>,
) -> HttpResponse {
    match try_stream(&request, &shared, query.into_inner()).await {
        Ok(events) => respond_with(events),
        Err(failure) => respond::failure(&request, &failure),
    }
}

async fn try_stream(
    request: &HttpRequest,
    shared: &Data<Shared>,
    query: EventsQuery,
) -> Result<OpenStream, Failure> {
    let client = request.client();
    let subject = match query.model {
        None => Subject::Overview,
        Some(model) => {
            let view = ModelView::new(shared.registry.snapshot(), client.clone());
            let task = find_task(&view, &model, query.task.as_deref())?;
            Subject::Model(Page { model, task })
        }
    };
    let visitor = Visitor::new(request, shared)?;
    let following = Following::new(shared, &subject, client).await?;
    Ok(OpenStream {
        visitor,
        subject,
        following,
        encoder: Encoder::new(query.structure),
    })
}

/// The events of an open page.
pub(super) trait Events: 'static {
    /// The next event. `None` ends the stream.
    async fn next(&mut self) -> Option<String>;
}

/// The reply with a stream of events.
pub(super) fn respond_with(events: impl Events) -> HttpResponse {
    let start = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(START.as_bytes())) });
    let events = stream::unfold(events, |mut events| async move {
        let event = events.next().await?;
        Some((Ok(Bytes::from(event)), events))
    });
    respond::status(200)
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        // For proxies that would collect events.
        .insert_header((HeaderName::from_static("x-accel-buffering"), "no"))
        .streaming(Box::pin(stream::StreamExt::chain(start, events)))
}

/// Who has opened a page.
pub(super) struct Visitor {
    pub(super) shared: Data<Shared>,
    pub(super) page: OpenPage,
    session: Option<Vec<u8>>,
    authorization: Option<Vec<u8>>,
    api_key: Option<Vec<u8>>,
    opened: Instant,
}

impl Visitor {
    /// Counts a page as open.
    ///
    /// # Errors
    /// `Unavailable` if too many pages are open.
    pub(super) fn new(request: &HttpRequest, shared: &Data<Shared>) -> Result<Self, Failure> {
        let ui = state(shared);
        let Some(page) = ui.feed.open_page() else {
            let message = format!("{MAX_PAGES} pages are open, or the server is shutting down");
            return Err(Failure {
                retry_after: Some(Duration::from_secs(10)),
                ..Failure::new(Code::Unavailable, message)
            });
        };
        Ok(Self {
            shared: shared.clone(),
            page,
            session: session::token(ui, request).map(<[u8]>::to_vec),
            authorization: request.header("authorization").map(<[u8]>::to_vec),
            api_key: request.header("api-key").map(<[u8]>::to_vec),
            opened: clock::now(),
        })
    }

    /// The client now. `None` if its stream is to end: a key can be removed or expire.
    pub(super) fn client(&self) -> Option<Client> {
        let is_over = clock::now().saturating_duration_since(self.opened) > MAX_AGE;
        let has_key = self.authorization.is_some() || self.api_key.is_some();
        let of_session = match &self.session {
            Some(token) if !has_key => self.shared.ui.as_ref()?.sessions.client(token),
            _ => None,
        };
        let client = of_session.unwrap_or_else(|| {
            let keys = &self.shared.keys;
            keys.identify(self.authorization.as_deref(), self.api_key.as_deref())
        });
        (!is_over && client.may_read()).then_some(client)
    }
}

/// The view that a page follows.
struct Following {
    rights: Rights,
    views: watch::Receiver<Arc<View>>,
}

impl Following {
    async fn new(shared: &Shared, subject: &Subject, client: Client) -> Result<Self, Failure> {
        let ui = state(shared);
        Ok(Self {
            rights: client.rights(),
            views: ui.views.follow(&ui.feed, subject, client).await?,
        })
    }
}

/// The stream of the overview or of the page of a model.
struct OpenStream {
    visitor: Visitor,
    subject: Subject,
    following: Following,
    encoder: Encoder,
}

impl Events for OpenStream {
    async fn next(&mut self) -> Option<String> {
        self.following.views.changed().await.ok()?;
        let client = self.visitor.client()?;
        if client.rights() != self.following.rights {
            if let Subject::Model(page) = &self.subject {
                client.check_model(&page.model).ok()?;
            }
            self.following = Following::new(&self.visitor.shared, &self.subject, client)
                .await
                .ok()?;
        }
        let view = self.following.views.borrow_and_update().clone();
        let point = view.point.as_ref();
        let point = point.map(|(time, point)| (*time, point.as_str()));
        Some(
            self.encoder
                .event(view.unix_seconds, view.structure, point, &view.cells),
        )
    }
}

/// Writes events with the cells that have changed.
pub(super) struct Encoder {
    /// The structure that the page was rendered with, if it is known.
    structure: Option<u64>,
    /// Hashes of the cells as they were sent.
    sent: HashMap<String, u64>,
    /// The time of the last point that was sent.
    last_point: Option<u64>,
    /// The cell that is sent first: the one that did not fit into the last event.
    next: String,
}

impl Encoder {
    pub(super) fn new(structure: Option<u64>) -> Self {
        Self {
            structure,
            sent: HashMap::new(),
            last_point: None,
            next: String::new(),
        }
    }

    /// An event with the cells, in the order of their ids, that have changed. A point is sent once.
    pub(super) fn event(
        &mut self,
        unix_seconds: u64,
        structure: u64,
        point: Option<(u64, &str)>,
        cells: &[SentCell],
    ) -> String {
        let is_stale = self.structure.is_some_and(|known| known != structure);
        let mut event = format!("data: {{\"t\":{unix_seconds}");
        if is_stale {
            event.push_str(",\"stale\":true");
        }
        if let Some((time, point)) = point.filter(|(time, _)| Some(*time) != self.last_point) {
            self.last_point = Some(time);
            event.push_str(",\"p\":");
            event.push_str(point);
        }
        if !is_stale {
            let start = event.len();
            event.push_str(",\"c\":{");
            let before = event.len();
            self.write_changed(cells, &mut event);
            if event.len() == before {
                event.truncate(start);
            } else {
                event.push('}');
            }
        }
        event.push_str("}\n\n");
        event
    }

    /// Appends the cells that have changed and fit, as members of an object.
    fn write_changed(&mut self, cells: &[SentCell], event: &mut String) {
        let max = MAX_EVENT.saturating_sub("}}\n\n".len());
        let next = std::mem::take(&mut self.next);
        let start = cells.partition_point(|cell| cell.id < next);
        let (before, from) = cells.split_at(start);
        let mut separator = "";
        for cell in from.iter().chain(before) {
            if self.sent.get(&cell.id) == Some(&cell.hash) {
                continue;
            }
            if event.len() + separator.len() + cell.member.len() > max {
                if self.next.is_empty() {
                    self.next.clone_from(&cell.id);
                }
                // A cell that does not fit into an empty event would never be sent.
                debug_assert!(
                    cell.member.len() <= MAX_CELL,
                    "{} bytes: {}",
                    cell.member.len(),
                    cell.member
                );
                continue;
            }
            event.push_str(separator);
            event.push_str(&cell.member);
            separator = ",";
            self.sent.insert(cell.id.clone(), cell.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::http::ui::cells::Cells;
    use crate::http::ui::history::tests::busy_point;
    use crate::http::ui::history::write_point;

    fn read(event: &str) -> Json {
        let text = event
            .strip_prefix("data: ")
            .and_then(|rest| rest.strip_suffix("\n\n"));
        let text = text.expect("it is an event");
        assert!(!text.contains('\n'), "{text}");
        serde_json::from_str(text).expect("it is JSON")
    }

    fn cells(texts: &[(&str, &str)]) -> Vec<SentCell> {
        let mut cells = Cells::default();
        for (id, text) in texts {
            cells.text(*id, text);
        }
        SentCell::all(&cells)
    }

    #[test]
    fn only_cells_that_have_changed_are_sent() {
        let mut encoder = Encoder::new(Some(7));
        let event = encoder.event(5, 7, None, &cells(&[("a", "1"), ("b", "<2>")]));
        assert_eq!(read(&event), json!({"t": 5, "c": {"a": "1", "b": "&lt;2&gt;"}}));
        let event = encoder.event(6, 7, None, &cells(&[("a", "1"), ("b", "3")]));
        assert_eq!(read(&event), json!({"t": 6, "c": {"b": "3"}}));
        let event = encoder.event(7, 7, None, &cells(&[("a", "1"), ("b", "3")]));
        assert_eq!(event, "data: {\"t\":7}\n\n");
    }

    #[test]
    fn a_page_with_another_structure_is_stale() {
        let mut encoder = Encoder::new(Some(7));
        let event = encoder.event(5, 8, None, &cells(&[("a", "1")]));
        assert_eq!(read(&event), json!({"t": 5, "stale": true}));
        let unknown = Encoder::new(None).event(5, 8, None, &cells(&[]));
        assert_eq!(read(&unknown), json!({"t": 5}));
    }

    #[test]
    fn a_second_is_sent_once() {
        let mut encoder = Encoder::new(None);
        let event = |encoder: &mut Encoder, time: u64| {
            let point = json!([time / 2, 1]).to_string();
            read(&encoder.event(time, 0, Some((time / 2, &point)), &[]))
        };
        assert_eq!(event(&mut encoder, 4), json!({"t": 4, "p": [2, 1]}));
        assert_eq!(event(&mut encoder, 5), json!({"t": 5}));
        assert_eq!(event(&mut encoder, 6), json!({"t": 6, "p": [3, 1]}));
    }

    /// A server with 500 models, all of whose figures change every second.
    #[test]
    fn events_have_at_most_one_kilobyte_and_all_cells_get_their_turn() {
        let mut encoder = Encoder::new(None);
        let point = busy_point();
        let mut last = HashMap::new();
        for second in 0..400_u64 {
            let mut cells = Cells::default();
            for model in 0..500 {
                cells.text(format!("{model}r"), &format!("{second} of {model}"));
            }
            cells.text("large", &format!("{second:0>600}"));
            let written = write_point(&point, &point.tasks[0]).to_string();
            let cells = SentCell::all(&cells);
            let event = encoder.event(1_764_510_000 + second, 0, Some((second, &written)), &cells);
            assert!(event.len() <= 1024, "{} bytes: {event}", event.len());
            let event = read(&event);
            for id in event["c"].as_object().into_iter().flat_map(|cells| cells.keys()) {
                last.insert(id.clone(), second);
            }
        }
        assert_eq!(last.len(), 501);
        let oldest = last.values().min().expect("cells were sent");
        assert!(400 - oldest < 60, "a cell was not sent for {} s", 400 - oldest);
    }
}
