//! The stream of events of an open page.
//!
//! An event per second has the time, the cells that have changed, and on the page of a model the latest second of its charts:
//! `{"t": 1764510000, "c": {"0r": "12.4"}, "p": [...]}`. If the page has to be rendered again, because its models have changed, the
//! event has `"stale": true`.
//!
//! # Size
//! An event has at most [`MAX_EVENT`] bytes, so that a page receives at most 1 KB per second. Cells that do not fit are sent with the
//! next events, in turn.
//!
//! # End
//! A stream ends at shutdown, when the key of its session is no longer valid, and after [`MAX_AGE`]; then the page opens another one.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use actix_web::web::{Bytes, Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::cells::{Cells, MAX_CELL};
use super::history::{find_task, write_point};
use super::model_page::Page;
use super::requests::Rows;
use super::{overview, session, state};
use crate::api::live::{Frame, MAX_PAGES, OpenPage};
use crate::api::{Client, Code, Failure, ModelView};
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
    let EventsQuery {
        model,
        task,
        structure,
    } = query.into_inner();
    let view = ModelView::new(shared.registry.snapshot(), request.client());
    let subject = match model {
        None => Subject::Overview,
        Some(model) => match find_task(&view, &model, task.as_deref()) {
            Ok(task) => Subject::Model(Page { model, task }),
            Err(failure) => return respond::failure(&request, &failure),
        },
    };
    let ui = state(&shared);
    let Some(page) = ui.feed.open_page() else {
        let message = format!("{MAX_PAGES} pages are open, or the server is shutting down");
        let failure = Failure {
            retry_after: Some(Duration::from_secs(10)),
            ..Failure::new(Code::Unavailable, message)
        };
        return respond::failure(&request, &failure);
    };
    let credentials = Credentials {
        session: session::token(ui, &request).map(<[u8]>::to_vec),
        authorization: request.header("authorization").map(<[u8]>::to_vec),
        api_key: request.header("api-key").map(<[u8]>::to_vec),
    };
    let first = Arc::new(ui.feed.frame());
    let open = OpenStream {
        shared: shared.clone(),
        page,
        credentials,
        subject,
        encoder: Encoder::new(structure),
        rows: Rows::default(),
        opened: clock::now(),
        first: Some(first),
    };
    let start = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(START.as_bytes())) });
    let events = stream::unfold(open, |mut open| async move {
        let event = open.next().await?;
        Some((Ok(Bytes::from(event)), open))
    });
    respond::status(200)
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        // For proxies that would collect events.
        .insert_header((HeaderName::from_static("x-accel-buffering"), "no"))
        .streaming(Box::pin(stream::StreamExt::chain(start, events)))
}

/// What identifies the client, for as long as the stream is open.
struct Credentials {
    session: Option<Vec<u8>>,
    authorization: Option<Vec<u8>>,
    api_key: Option<Vec<u8>>,
}

impl Credentials {
    /// The client now. A key can be removed or expire.
    fn client(&self, shared: &Shared) -> Client {
        let session = self
            .session
            .as_deref()
            .filter(|_| self.authorization.is_none() && self.api_key.is_none());
        let sessions = shared.ui.as_ref().map(|ui| &ui.sessions);
        let of_session = session
            .zip(sessions)
            .and_then(|(token, sessions)| sessions.client(token));
        of_session.unwrap_or_else(|| {
            shared
                .keys
                .identify(self.authorization.as_deref(), self.api_key.as_deref())
        })
    }
}

/// A stream that is open.
struct OpenStream {
    shared: Data<Shared>,
    page: OpenPage,
    credentials: Credentials,
    subject: Subject,
    encoder: Encoder,
    rows: Rows,
    opened: Instant,
    /// The state when it was opened, which is the first event.
    first: Option<Arc<Frame>>,
}

impl OpenStream {
    /// The next event. `None` ends the stream.
    async fn next(&mut self) -> Option<String> {
        let frame = match self.first.take() {
            Some(frame) => frame,
            None => self.page.next().await?,
        };
        let client = self.credentials.client(&self.shared);
        let is_over = clock::now().saturating_duration_since(self.opened) > MAX_AGE;
        if is_over || !client.may_read() {
            return None;
        }
        let ui = self.shared.ui.as_ref()?;
        let (cells, structure, point) = match &self.subject {
            Subject::Overview => (
                overview::cells(&frame, &client),
                overview::structure(&frame, &client),
                None,
            ),
            Subject::Model(page) => {
                client.check_model(&page.model).ok()?;
                (
                    page.cells(&frame, &client, ui.feed.notable_requests(), &mut self.rows),
                    page.structure(&frame),
                    point(&frame, page),
                )
            }
        };
        Some(self.encoder.event(frame.unix_seconds, structure, point, &cells))
    }
}

/// What a page shows.
enum Subject {
    Overview,
    Model(Page),
}

/// The latest second of the charts of a page.
fn point(frame: &Frame, page: &Page) -> Option<Json> {
    let model = frame
        .models
        .iter()
        .find(|model| model.entry.name() == page.model)?;
    let latest = model.latest.as_ref()?;
    Some(write_point(latest, latest.tasks.get(page.task?)?))
}

/// Writes events with the cells that have changed.
struct Encoder {
    /// The structure that the page was rendered with, if it is known.
    structure: Option<u64>,
    /// Hashes of the cells as they were sent.
    sent: HashMap<String, u64>,
    /// The time of the last point that was sent.
    last_point: Option<Json>,
    /// The cell that is sent first: the one that did not fit into the last event.
    next: String,
}

impl Encoder {
    fn new(structure: Option<u64>) -> Self {
        Self {
            structure,
            sent: HashMap::new(),
            last_point: None,
            next: String::new(),
        }
    }

    fn event(&mut self, unix_seconds: u64, structure: u64, point: Option<Json>, cells: &Cells) -> String {
        let is_stale = self.structure.is_some_and(|known| known != structure);
        let point = point.filter(|point| Some(&point[0]) != self.last_point.as_ref());
        if let Some(point) = &point {
            self.last_point = Some(point[0].clone());
        }
        let mut event = json!({ "t": unix_seconds });
        if is_stale {
            event["stale"] = true.into();
        }
        if let Some(point) = point {
            event["p"] = point;
        }
        let mut text = event.to_string();
        // What frames an event, and its cells.
        let room = MAX_EVENT.saturating_sub(text.len() + "data: \n\n,\"c\":{}".len());
        let changed = if is_stale {
            String::new()
        } else {
            self.changed(cells, room)
        };
        if !changed.is_empty() {
            text.truncate(text.len() - 1);
            text.push_str(",\"c\":{");
            text.push_str(&changed);
            text.push_str("}}");
        }
        format!("data: {text}\n\n")
    }

    /// The cells that have changed and fit into `room` bytes, as members of an object.
    fn changed(&mut self, cells: &Cells, room: usize) -> String {
        let ordered: BTreeMap<&str, &str> = cells.iter().collect();
        let next = std::mem::take(&mut self.next);
        let in_turn = ordered
            .range(next.as_str()..)
            .chain(ordered.range(..next.as_str()));
        let mut members = String::new();
        for (id, html) in in_turn {
            let mut hasher = DefaultHasher::new();
            html.hash(&mut hasher);
            let hash = hasher.finish();
            if self.sent.get(*id) == Some(&hash) {
                continue;
            }
            let member = format!("{}:{}", json!(id), json!(html));
            let separator = usize::from(!members.is_empty());
            if members.len() + separator + member.len() > room {
                if self.next.is_empty() {
                    self.next = (*id).to_owned();
                }
                // A cell that does not fit into an empty event would never be sent.
                debug_assert!(member.len() <= MAX_CELL, "{} bytes: {member}", member.len());
                continue;
            }
            if separator > 0 {
                members.push(',');
            }
            members.push_str(&member);
            self.sent.insert((*id).to_owned(), hash);
        }
        members
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ui::history::tests::busy_point;

    fn read(event: &str) -> Json {
        let text = event
            .strip_prefix("data: ")
            .and_then(|rest| rest.strip_suffix("\n\n"));
        let text = text.expect("it is an event");
        assert!(!text.contains('\n'), "{text}");
        serde_json::from_str(text).expect("it is JSON")
    }

    fn cells(texts: &[(&str, &str)]) -> Cells {
        let mut cells = Cells::default();
        for (id, text) in texts {
            cells.text(*id, text);
        }
        cells
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
            read(&encoder.event(time, 0, Some(json!([time / 2, 1])), &cells(&[])))
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
            cells.text("large", &"x".repeat(MAX_CELL - 20 + second as usize % 2));
            let point = write_point(&point, &point.tasks[0]);
            let event = encoder.event(1_764_510_000 + second, 0, Some(point), &cells);
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
