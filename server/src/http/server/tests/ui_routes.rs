use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::test_server::{Answer, PATIENCE, TestServer, send_to};
use crate::api::live::MAX_PAGES;
use crate::http::transport::HALF_CLOSE_WINDOW;

const CLIENT: &str = "a-key-of-a-client";
const ADMIN: &str = "the-key-of-the-admin";

fn with_keys() -> TestServer {
    TestServer::start_with(&format!("api_keys = [\"{CLIENT}\"]\nadmin_key = \"{ADMIN}\""))
}

/// Signs in as a browser does, from a page of the origin of the server.
async fn sign_in(server: &TestServer, key: &str, headers: &str) -> Answer {
    let head = format!(
        "POST /ui/login\ncontent-type: application/x-www-form-urlencoded\norigin: http://test{headers}"
    );
    server.send(&head, format!("key={key}").as_bytes()).await
}

/// The cookie of a new session.
async fn cookie(server: &TestServer, key: &str) -> String {
    let answer = sign_in(server, key, "").await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("./")));
    let cookie = answer.header("set-cookie").expect("a session is opened");
    let value = cookie.split(';').next().expect("it has a value");
    value.to_owned()
}

#[actix_web::test]
async fn browsers_are_led_to_the_page() {
    let server = TestServer::start();
    let root = server.send("GET /\naccept: text/html,*/*;q=0.8", b"").await;
    assert_eq!((root.status, root.header("location")), (302, Some("ui/")));
    assert!(root.header("vary").is_some_and(|vary| vary.contains("accept")));
    let answer = server.get("/ui").await;
    assert_eq!((answer.status, answer.header("location")), (308, Some("ui/")));
    assert_eq!(server.get("/").await.json()["name"], json!("inference-server"));
}

#[actix_web::test]
async fn the_overview_lists_all_models_without_scripts_or_inline_styles() {
    let server = TestServer::start();
    let page = server.get("/ui/").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").expect("there is a policy");
    assert!(
        policy.contains("default-src 'none'; script-src 'self'; style-src 'self'"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let text = page.text();
    for part in [
        "href=\"models/vision\"",
        "<span class=\"badge fine\">ready</span>",
        "<span class=\"badge warning\">loading</span>",
        "the model is being loaded",
        "1 / 2",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    for forbidden in [
        "style=", "<script>", "onclick", "href=\"/", "src=\"/", "http://", "https://",
    ] {
        assert!(!text.contains(forbidden), "{forbidden}: {text}");
    }
}

#[actix_web::test]
async fn the_page_of_a_model_has_the_figures_of_one_of_its_tasks() {
    let server = TestServer::start();
    let page = server.get("/ui/models/vision?task=upper").await.text();
    for part in [
        "aria-current=\"page\">upper</a>",
        "href=\"?task=flip\"",
        "data-history=\"../../ui/history/vision?task=upper\"",
        "v1/models/vision/tasks/upper/predict",
        "Batching",
    ] {
        assert!(page.contains(part), "{part} is missing: {page}");
    }
    assert!(!page.contains("id=\"reload\""), "{page}");
    let loading = server.get("/ui/models/later").await;
    assert!(loading.status == 200 && loading.text().contains("the model is being loaded"));
    for (path, name) in [
        ("/ui/models/nothing", "unknown model `nothing`"),
        ("/ui/models/vision?task=nothing", "unknown task `nothing`"),
        ("/ui/models/%3Cb%3E", "&lt;b&gt;"),
    ] {
        let missing = server.get(path).await;
        assert_eq!(missing.status, 404, "{path}");
        let text = missing.text();
        assert!(
            text.contains(name) && text.contains("href=\"../../ui/\""),
            "{path}: {text}"
        );
    }
    let history = server.get("/ui/history/vision?task=upper").await.json();
    assert_eq!(
        (&history["points"], &history["sizes"][2]),
        (&json!([]), &json!("3–4"))
    );
    assert_eq!(server.get("/ui/history/nothing").await.error().0, 404);
}

#[actix_web::test]
async fn a_server_with_keys_asks_for_one() {
    let server = with_keys();
    for path in ["/ui/", "/ui/models/vision", "/ui/models/nothing", "/ui/jobs"] {
        let page = server.get(path).await;
        assert_eq!(page.status, 401, "{path}");
        // The form leads back to the page that was asked for, whether it exists or not.
        let text = page.text().replace("?next=models%2Fvision\"", "\"");
        assert!(
            text.contains("type=\"password\"") && !text.contains("vision"),
            "{path}: {text}"
        );
    }
    for path in ["/ui/events", "/ui/history/vision", "/ui/jobs/events?ids="] {
        assert_eq!(server.get(path).await.error().0, 401, "{path}");
    }
    assert_eq!(server.get("/ui/static/app.js").await.status, 200);
    for (key, headers, status) in [
        ("another-key", "", 401),
        ("", "", 401),
        (CLIENT, "\nsec-fetch-site: cross-site", 403),
    ] {
        let rejected = sign_in(&server, key, headers).await;
        assert_eq!(
            (rejected.status, rejected.header("set-cookie")),
            (status, None),
            "{key}"
        );
        assert!(rejected.text().contains("role=\"alert\""), "{key}");
    }
    let other_origin = "POST /ui/login\norigin: http://test:81";
    let rejected = server
        .send(other_origin, format!("key={CLIENT}").as_bytes())
        .await;
    assert_eq!(rejected.status, 403);
}

#[actix_web::test]
async fn a_session_grants_what_its_key_grants() {
    let server = with_keys();
    let answer = sign_in(&server, CLIENT, "").await;
    let set_cookie = answer.header("set-cookie").expect("a session is opened");
    assert!(
        set_cookie.starts_with("inference_ui=")
            && set_cookie.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"),
        "{set_cookie}"
    );
    assert!(!set_cookie.contains(CLIENT), "{set_cookie}");
    let (client, admin) = (cookie(&server, CLIENT).await, cookie(&server, ADMIN).await);
    let page = async |path: &str, cookie: &str| {
        let answer = server
            .send(&format!("GET {path}\ncookie: a=b; {cookie}"), b"")
            .await;
        assert_eq!(answer.status, 200, "{path}");
        answer.text()
    };
    assert!(page("/ui/", &client).await.contains("href=\"models/vision\""));
    let reload = "id=\"reload\"";
    assert!(!page("/ui/models/vision", &client).await.contains(reload));
    assert!(page("/ui/models/vision", &admin).await.contains(reload));
    let load = async |cookie: &str| {
        let head = format!("POST /v2/repository/models/vision/load\ncookie: {cookie}\norigin: http://test");
        server.send(&head, b"").await.status
    };
    // The test server drops commands, which means that it is shutting down.
    assert_eq!((load(&client).await, load(&admin).await), (403, 503));
}

/// The cookie is sent by the browser whichever page causes the request.
#[actix_web::test]
async fn a_session_counts_only_for_requests_of_pages_of_this_server() {
    let server = with_keys();
    let cookie = cookie(&server, CLIENT).await;
    let predict = async |headers: &str| {
        let head = format!("POST /shout\ncontent-type: application/json\ncookie: {cookie}{headers}");
        server.send(&head, b"{\"input\":\"hello\"}").await.status
    };
    assert_eq!(predict("\norigin: http://test").await, 200);
    assert_eq!(predict("\nsec-fetch-site: same-origin").await, 200);
    for headers in [
        "",
        "\norigin: http://other",
        "\norigin: null",
        "\nsec-fetch-site: same-site",
        "\nsec-fetch-site: cross-site\norigin: http://test",
    ] {
        assert_eq!(predict(headers).await, 401, "{headers}");
    }
    // A key takes precedence, even if it is invalid.
    assert_eq!(
        predict("\norigin: http://test\nauthorization: Bearer x").await,
        401
    );
    assert_eq!(predict(&format!("\nauthorization: Bearer {CLIENT}")).await, 200);
}

#[actix_web::test]
async fn a_session_ends_when_the_user_signs_out() {
    let server = with_keys();
    let cookie = cookie(&server, CLIENT).await;
    let sign_out = async |headers: &str| {
        let head = format!("POST /ui/logout\ncookie: {cookie}{headers}");
        server.send(&head, b"").await
    };
    let models = async || {
        server
            .send(&format!("GET /v1/models\ncookie: {cookie}"), b"")
            .await
            .status
    };
    assert_eq!(sign_out("\norigin: http://other").await.error().0, 403);
    assert_eq!(models().await, 200);
    let signed_out = sign_out("\norigin: http://test").await;
    assert_eq!(signed_out.status, 303);
    assert!(
        signed_out
            .header("set-cookie")
            .is_some_and(|cookie| cookie.contains("Max-Age=0"))
    );
    assert_eq!(models().await, 401);
}

#[actix_web::test]
async fn signing_in_leads_back_to_a_page_and_nowhere_else() {
    let server = with_keys();
    let form = server.get("/ui/models/vision?task=upper").await.text();
    let action = "action=\"../../ui/login?next=models%2Fvision%3Ftask%3Dupper\"";
    assert!(form.contains(action), "{form}");
    for (next, location) in [
        ("models%2Fvision%3Ftask%3Dupper", "./models/vision?task=upper"),
        ("%2F%2Fother.example%2F", ".///other.example/"),
        ("https%3A%2F%2Fother.example", "./https://other.example"),
        ("x%0D%0Aset-cookie%3A%20a", "./"),
        ("%C3%BC", "./"),
    ] {
        let head = format!("POST /ui/login?next={next}\norigin: http://test");
        let answer = server.send(&head, format!("key={CLIENT}").as_bytes()).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some(location)),
            "{next}"
        );
    }
}

#[actix_web::test]
async fn a_session_that_has_ended_is_named_as_the_reason() {
    let server = with_keys();
    let ended = "The session has ended.";
    let page = server
        .send(
            "GET /ui/jobs\ncookie: inference_ui=of-a-session-that-has-ended",
            b"",
        )
        .await;
    assert_eq!(page.status, 401);
    assert!(page.text().contains(ended), "{}", page.text());
    assert!(!server.get("/ui/jobs").await.text().contains(ended));
}

#[actix_web::test]
async fn jobs_are_changed_only_by_pages_of_this_server() {
    let server = TestServer::start();
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for (headers, body, status) in [
        ("", format!("cancel={id}"), 403),
        ("\norigin: http://other", format!("cancel={id}"), 403),
        ("\nsec-fetch-site: cross-site", format!("retry={id}"), 403),
        ("\norigin: http://test", "remove=x".to_owned(), 400),
        ("\norigin: http://test", format!("cancel={id}&retry={id}"), 400),
        ("\norigin: http://test", format!("cancel={id}"), 404),
        ("\norigin: http://test", "retry=%3Cb%3E".to_owned(), 404),
    ] {
        let answer = server
            .send(&format!("POST /ui/jobs{headers}"), body.as_bytes())
            .await;
        let text = answer.text();
        assert_eq!(answer.status, status, "{headers} {body}: {text}");
        assert!(!text.contains("<b>"), "{text}");
    }
}

#[actix_web::test]
async fn a_proxy_that_terminates_tls_makes_the_cookie_secure() {
    let server = with_keys();
    let answer = sign_in(&server, CLIENT, "\nx-forwarded-proto: https").await;
    let cookie = answer.header("set-cookie").expect("a session is opened");
    assert!(
        cookie.starts_with("__Host-inference_ui=") && cookie.ends_with("; Secure"),
        "{cookie}"
    );
}

#[actix_web::test]
async fn the_page_can_be_disabled() {
    let server = TestServer::start_with("ui = false");
    for path in [
        "/ui",
        "/ui/",
        "/ui/models/vision",
        "/ui/jobs",
        "/ui/static/app.js",
        "/ui/events",
    ] {
        assert_eq!(server.get(path).await.error().0, 404, "{path}");
    }
    assert_eq!(server.send("POST /ui/login", b"").await.error().0, 404);
}

#[actix_web::test]
async fn management_only_moves_the_page_to_the_management_port() {
    let server = TestServer::start_with("management_port = 0\nmanagement_only = true");
    let management = server.server.management_addresses()[0];
    for path in ["/ui/", "/ui/models/vision?task=upper"] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
        let page = send_to(management, &format!("GET {path}"), b"").await;
        assert_eq!(page.status, 200, "{path}");
    }
    let page = send_to(management, "GET /ui/models/vision?task=upper", b"")
        .await
        .text();
    assert!(
        page.contains("Open this page on the main port") && !page.contains("id=\"try\""),
        "{page}"
    );
    // Where there is no page, there is a list of the models.
    let root = server.send("GET /\naccept: text/html", b"").await;
    assert!(root.status == 200 && root.text().contains("vision"));
}

#[actix_web::test]
async fn files_are_sent_again_only_if_they_have_changed() {
    let server = TestServer::start();
    for (file, kind) in [
        ("app.js", "text/javascript; charset=utf-8"),
        ("app.css", "text/css; charset=utf-8"),
        ("uplot.js", "text/javascript; charset=utf-8"),
    ] {
        let answer = server.get(&format!("/ui/static/{file}")).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(kind)),
            "{file}"
        );
        let tag = answer.header("etag").expect("a file has a tag");
        let again = server
            .send(&format!("GET /ui/static/{file}\nif-none-match: {tag}"), b"")
            .await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{file}");
    }
    assert_eq!(server.get("/ui/static/nothing.js").await.error().0, 404);
    assert_eq!(server.get("/ui/static/..%2fapp.js").await.status, 404);
}

/// A stream of events, over a dedicated connection.
struct Events {
    stream: TcpStream,
    received: String,
}

impl Events {
    async fn open(server: &TestServer, path: &str) -> Self {
        let mut stream = server.connect().await;
        let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("the server reads");
        Self {
            stream,
            received: String::new(),
        }
    }

    /// Reads until the text contains `part`. `false` if the stream ends before.
    async fn reach(&mut self, part: &str) -> bool {
        let mut buffer = [0; 4096];
        while !self.received.contains(part) {
            let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await;
            let count = read.expect("something arrives").unwrap_or(0);
            if count == 0 {
                return false;
            }
            self.received.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        true
    }
}

#[actix_web::test]
async fn a_stream_starts_with_the_present_state() {
    let server = TestServer::start();
    let mut events = Events::open(&server, "/ui/events").await;
    assert!(events.reach("}\n\n\r\n").await);
    let text = &events.received;
    assert!(
        text.contains("content-type: text/event-stream") && text.contains("retry: 2000"),
        "{text}"
    );
    let event = text
        .split("data: ")
        .nth(1)
        .and_then(|rest| rest.split("\n\n").next());
    let event: Json = serde_json::from_str(event.expect("an event")).expect("it is JSON");
    assert_eq!(
        event["c"]["0s"],
        json!("<span class=\"badge warning\">loading</span>"),
        "{event}"
    );
    assert!(event["t"].is_u64(), "{event}");
    let unknown = server.get("/ui/events?model=nothing").await;
    assert_eq!(unknown.error().0, 404);
}

#[actix_web::test]
async fn the_number_of_open_pages_is_limited() {
    let server = TestServer::start();
    let mut open = Vec::new();
    for _ in 0..MAX_PAGES {
        let mut events = Events::open(&server, "/ui/events").await;
        assert!(events.reach("data: ").await);
        open.push(events);
    }
    let rejected = server.get("/ui/events").await;
    assert_eq!(rejected.error().0, 503);
    assert_eq!(rejected.header("retry-after"), Some("10"));
    // The end of a connection right after its request would be taken for a half-close until the next event.
    tokio::time::sleep(2 * HALF_CLOSE_WINDOW).await;
    drop(open.remove(0));
    let wait = async {
        loop {
            let mut further = Events::open(&server, "/ui/events").await;
            assert!(further.reach("\r\n\r\n").await);
            if further.received.starts_with("HTTP/1.1 200 ") {
                return;
            }
            // The server has not noticed the disconnect yet.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("there is room");
}

#[actix_web::test]
async fn streams_end_when_the_server_drains() {
    let server = TestServer::start();
    let mut events = Events::open(&server, "/ui/events").await;
    assert!(events.reach("data: ").await);
    server.server.start_draining();
    assert!(events.reach("\r\n0\r\n\r\n").await, "{}", events.received);
}
