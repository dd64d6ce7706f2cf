//! Durable jobs: submission, states, results, limits, visibility, and what survives.

use std::path::Path;

use serde_json::{Value as Json, json};

use crate::harness::client::{Call, predict_path};
use crate::harness::misbehave::echoes;
use crate::harness::{Client, Reply, Scenario, Server, Signal, eventually};

/// Configuration of one model `words` of the plugin `template`.
const WORDS: &str = "[[models]]\nname = \"words\"\nplugin = \"template\"\ndefault_task = \"echo\"\n\
                     [models.tasks.echo]\nroute = \"/say\"\n";

/// Configuration of one model `m` of the plugin `misbehave`.
const M: &str = "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n";

const ECHO: &str = "/v1/models/words/tasks/echo/predict";
const TEXT: &str = "/v1/models/m/tasks/text/predict";

fn start(jobs: &str, models: &str) -> Server {
    crate::harness::plugins::library("misbehave");
    Scenario::new(&format!("[jobs]\n{jobs}\n{models}")).start()
}

/// A request for a job.
fn job<'a>(client: &'a Client, path: &str, body: &Json) -> Call<'a> {
    client
        .request("POST", path)
        .header("prefer", "respond-async")
        .json(body)
}

/// Submits a job, and returns its id.
#[track_caller]
fn submit(client: &Client, path: &str, body: &Json) -> String {
    id_of(&job(client, path, body).send().expect(202))
}

#[track_caller]
fn id_of(reply: &Reply) -> String {
    reply.json()["id"].as_str().expect("a job has an id").to_owned()
}

/// Waits until a job has ended.
#[track_caller]
fn wait(client: &Client, id: &str) -> Json {
    eventually("a job to end", || {
        let job = client.get(&format!("/v1/jobs/{id}?wait=30s")).expect(200).json();
        match job["state"].as_str() {
            Some("queued" | "running") => Err(job),
            _ => Ok(job),
        }
    })
}

fn wait_for_state(client: &Client, id: &str, state: &str) {
    eventually(state, || {
        let job = client.get(&format!("/v1/jobs/{id}")).expect(200).json();
        if job["state"] == state { Ok(()) } else { Err(job) }
    });
}

fn result(client: &Client, id: &str) -> Reply {
    client.get(&format!("/v1/jobs/{id}/result"))
}

/// Waits until the metrics report this number of jobs of a model in a state.
fn wait_for_jobs(server: &Server, model: &str, state: &str, count: usize) {
    let line = format!("inference_jobs{{model=\"{model}\",state=\"{state}\"}} {count}");
    eventually(&line, || {
        let text = server.get("/metrics").expect(200).text();
        let jobs = text.lines().filter(|line| line.starts_with("inference_jobs{"));
        let jobs: Vec<String> = jobs.map(str::to_owned).collect();
        if jobs.contains(&line) { Ok(()) } else { Err(jobs) }
    });
}

/// An item that waits until the file exists.
fn waiting(file: &Path) -> Json {
    json!([{"do": "wait", "path": file, "value": "waited"}])
}

/// The parts of a native reply that do not depend on time.
fn timeless(reply: &Reply) -> Json {
    let mut json = reply.json();
    json["inference_time"] = 0.into();
    json["error"]["request_id"] = Json::Null;
    json
}

#[test]
fn the_result_of_a_job_is_the_reply_of_the_synchronous_call_in_every_protocol() {
    let server = start("", &format!("{WORDS}{M}"));
    let v2 = json!({"id": "7", "inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["to be"]}]});
    let binary = json!({"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["to be"]}],
        "parameters": {"binary_data_output": true}});
    let embeddings = json!({"model": "m.embed", "input": ["a", "b"]});
    for (path, body) in [
        (ECHO, json!({"inputs": ["to be", "or not"]})),
        ("/v1/models/words/predict", json!({"input": "to be"})),
        ("/v1/models/w%6Frds/predict", json!({"input": "to be"})),
        ("/say", json!({"inputs": ["to be"]})),
        ("/v1/models/words:predict", json!({"instances": ["to be"]})),
        (
            "/v1/models/words/versions/1:predict",
            json!({"inputs": ["to be"]}),
        ),
        ("/v2/models/words/infer", v2),
        ("/v2/models/words.echo/versions/1/infer", binary),
        ("/v1/embeddings", embeddings.clone()),
        ("/openai/deployments/m.embed/embeddings", embeddings),
        // An item that the task rejects.
        ("/v1/models/words/tasks/stats/predict", json!({"inputs": [5]})),
    ] {
        let synchronous = server.post(path, &body);
        let accepted = job(&server, path, &body).send().expect(202);
        assert_eq!(
            accepted.header("preference-applied"),
            Some("respond-async"),
            "{path}"
        );
        let id = id_of(&accepted);
        assert_eq!(
            accepted.header("location"),
            Some(format!("/v1/jobs/{id}").as_str())
        );
        let ended = wait(&server, &id);
        let expected = if synchronous.status == 200 {
            "succeeded"
        } else {
            "failed"
        };
        assert_eq!(ended["state"], expected, "{path}: {ended}");
        let result = result(&server, &id);
        assert_eq!(result.status, synchronous.status, "{path}: {}", result.text());
        for name in ["content-type", "inference-header-content-length"] {
            assert_eq!(result.header(name), synchronous.header(name), "{path}");
        }
        match synchronous.text().contains("inference_time") {
            true => assert_eq!(timeless(&result), timeless(&synchronous), "{path}"),
            false if synchronous.status == 200 => assert_eq!(result.body, synchronous.body, "{path}"),
            false => assert_eq!(timeless(&result), timeless(&synchronous), "{path}"),
        }
    }
}

#[test]
fn a_job_is_described_from_its_submission_to_its_end() {
    let server = start("", M);
    let gate = server.dir().join("gate");
    let submitted = job(&server, TEXT, &json!({"inputs": waiting(&gate)}))
        .header("x-job-label", "nightly")
        .header("x-priority", "high")
        .header("x-job-ttl", "1h")
        .send()
        .expect(202)
        .json();
    for (member, value) in [
        ("object", json!("job")),
        ("state", json!("queued")),
        ("model", json!("m")),
        ("task", json!("text")),
        ("label", json!("nightly")),
        ("priority", json!("high")),
        ("attempts", json!(0)),
        ("items", json!(1)),
        ("items_done", json!(0)),
        ("error", Json::Null),
        ("finished_at", Json::Null),
    ] {
        assert_eq!(submitted[member], value, "{member} of {submitted}");
    }
    assert!(submitted["expires_at"].is_string(), "{submitted}");
    let id = submitted["id"].as_str().expect("an id");
    wait_for_state(&server, id, "running");
    let (code, message) = result(&server, id).expect(409).error();
    assert_eq!(code, "conflict");
    assert!(message.contains("is running"), "{message}");
    // A wait ends with its time, and not with an error.
    let waited = server.get(&format!("/v1/jobs/{id}?wait=10ms")).expect(200).json();
    assert_eq!(
        (&waited["state"], &waited["attempts"]),
        (&json!("running"), &json!(1))
    );
    std::fs::write(&gate, "open").expect("open the gate");
    let ended = wait(&server, id);
    for (member, value) in [
        ("state", json!("succeeded")),
        ("attempts", json!(1)),
        ("items_done", json!(1)),
        ("result_status", json!(200)),
        ("can_retry", json!(false)),
    ] {
        assert_eq!(ended[member], value, "{member} of {ended}");
    }
    assert!(ended["finished_at"].is_string(), "{ended}");
    let found = server
        .get("/v1/jobs?label=nightly&state=succeeded&model=m")
        .expect(200)
        .json();
    assert_eq!(found["data"][0]["id"], id);
    for other in ["label=other", "state=failed", "model=words"] {
        let found = server.get(&format!("/v1/jobs?{other}")).expect(200).json();
        assert_eq!(found["data"], json!([]), "{other}");
    }
}

#[test]
fn an_idempotency_key_stands_for_one_job() {
    let server = start("", WORDS);
    let send = |key: &str, text: &str| {
        job(&server, ECHO, &json!({"inputs": [text]}))
            .header("idempotency-key", key)
            .send()
    };
    let first = id_of(&send("k", "a").expect(202));
    wait(&server, &first);
    assert_eq!(id_of(&send("k", "a").expect(202)), first, "also after its end");
    let (code, message) = send("k", "b").expect(409).error();
    assert_eq!(code, "conflict");
    assert!(message.contains(&first), "{message}");
    assert_ne!(id_of(&send("other", "a").expect(202)), first);
    let all = server.get("/v1/jobs").expect(200).json();
    assert_eq!(all["data"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_request_that_is_not_valid_gets_the_error_of_the_synchronous_call_and_is_not_stored() {
    let server = start("max_job_size = \"1KiB\"", WORDS);
    for (path, body) in [
        (ECHO, json!({"inputs": []})),
        (ECHO, json!({"input": "a", "inputs": ["b"]})),
        ("/v1/models/word/predict", json!({"input": "a"})),
        ("/v1/models/words/tasks/eko/predict", json!({"input": "a"})),
        ("/v1/models/words:predict", json!({"instances": []})),
        ("/v2/models/words/infer", json!({"inputs": []})),
        ("/v1/embeddings", json!({"model": "words", "input": "a"})),
    ] {
        let synchronous = server.post(path, &body);
        let rejected = job(&server, path, &body).send().expect(synchronous.status);
        assert!(synchronous.status >= 400, "{path}");
        let message = |reply: &Reply| {
            let json = reply.json();
            let error = json["error"].clone();
            error["message"].as_str().or(error.as_str()).map(str::to_owned)
        };
        assert_eq!(message(&rejected), message(&synchronous), "{path}");
    }
    let large = json!({"inputs": ["a".repeat(2000)]});
    let (code, message) = job(&server, ECHO, &large).send().expect(413).error();
    assert_eq!(code, "body_too_large");
    assert!(message.contains("1024 bytes"), "{message}");
    server.post(ECHO, &large).expect(200);
    assert_eq!(server.get("/v1/jobs").expect(200).json()["data"], json!([]));
}

#[test]
fn headers_and_parameters_that_cannot_be_honored_are_rejected() {
    let server = start("", WORDS);
    let body = json!({"inputs": ["a"]});
    for (name, value) in [
        ("x-job-ttl", "soon"),
        ("x-job-not-before", "never"),
        ("x-priority", "urgent"),
        ("idempotency-key", ""),
    ] {
        let (_, message) = job(&server, ECHO, &body)
            .header(name, value)
            .send()
            .expect(400)
            .error();
        assert!(message.contains(name), "{message}");
    }
    let call = server
        .request("POST", ECHO)
        .header("x-job-label", "a")
        .json(&body);
    let (_, message) = call.send().expect(400).error();
    assert!(message.contains("prefer: respond-async"), "{message}");
    for path in [
        "/v1/jobs?state=done",
        "/v1/jobs?limit=0",
        "/v1/jobs?cursor=7",
        "/v1/jobs?order=up",
    ] {
        server.get(path).expect(400).error();
    }
    for path in [
        "/v1/jobs/7",
        "/v1/jobs/01890a5d-ac96-774b-bcce-b302099a8057/result",
    ] {
        assert_eq!(server.get(path).expect(404).error().0, "not_found");
    }
    let id = submit(&server, ECHO, &body);
    for query in ["wait=1h", "wait=x", "for=1s"] {
        server.get(&format!("/v1/jobs/{id}?{query}")).expect(400).error();
    }
}

#[test]
fn a_job_is_cancelled_while_it_waits_and_while_it_runs_and_removed_after_its_end() {
    let server = start("", &format!("{M}[models.batching]\nmax_batch_size = 1\n"));
    let gate = server.dir().join("gate");
    let running = submit(&server, TEXT, &json!({"inputs": waiting(&gate)}));
    wait_for_state(&server, &running, "running");
    let later = job(&server, TEXT, &json!({"inputs": echoes(["b"])}))
        .header("x-job-not-before", "1h")
        .send();
    let waiting = id_of(&later.expect(202));
    for id in [&running, &waiting] {
        let cancelled = server
            .request("DELETE", &format!("/v1/jobs/{id}"))
            .send()
            .expect(200);
        assert_eq!(cancelled.json()["state"], "cancelled");
        let (code, message) = result(&server, id).expect(410).error();
        assert_eq!(code, "gone");
        assert!(message.contains("is cancelled"), "{message}");
    }
    std::fs::write(&gate, "open").expect("open the gate");
    let removed = server
        .request("DELETE", &format!("/v1/jobs/{running}"))
        .send()
        .expect(200)
        .json();
    assert_eq!(removed, json!({"id": running, "object": "job", "deleted": true}));
    server.get(&format!("/v1/jobs/{running}")).expect(404);
    let allowed = server
        .request("PUT", &format!("/v1/jobs/{waiting}"))
        .send()
        .expect(405);
    assert_eq!(allowed.header("allow"), Some("GET, HEAD, DELETE"));
}

#[test]
fn a_job_that_waits_too_long_expires() {
    let server = start("", M);
    let call = job(&server, TEXT, &json!({"inputs": echoes(["a"])}))
        .header("x-job-not-before", "1h")
        .header("x-job-ttl", "100ms");
    let id = id_of(&call.send().expect(202));
    assert_eq!(wait(&server, &id)["state"], "expired");
    result(&server, &id).expect(410);
}

#[test]
fn too_many_jobs_are_rejected_with_a_time_to_retry() {
    let server = start("max_queued_jobs = 2", M);
    let later = || {
        job(&server, TEXT, &json!({"inputs": echoes(["a"])}))
            .header("x-job-not-before", "1h")
            .send()
    };
    later().expect(202);
    later().expect(202);
    let rejected = later().expect(429);
    assert_eq!(rejected.header("retry-after"), Some("10"));
    let (code, message) = rejected.error();
    assert_eq!(code, "queue_full");
    assert!(message.contains("2 of at most 2"), "{message}");
}

#[test]
fn a_result_that_is_too_large_fails_its_job() {
    let server = start("max_result_size = \"1KiB\"", WORDS);
    let id = submit(&server, ECHO, &json!({"inputs": ["a".repeat(2000)]}));
    let ended = wait(&server, &id);
    assert_eq!(ended["state"], "failed");
    assert_eq!(ended["error"]["code"], "result_too_large");
    let (_, message) = result(&server, &id).expect(410).error();
    assert!(message.contains("max_result_size"), "{message}");
}

#[test]
fn a_crash_of_the_model_costs_an_attempt_and_a_rejected_input_none() {
    let isolated = format!("{M}isolation = \"process\"\non_crash = \"fail\"\nrestart_delay = \"1ms\"\n");
    let server = start("max_attempts = 2", &isolated);
    let once = server.dir().join("once");
    let body = json!({"inputs": [{"do": "abort", "once": once, "value": "survivor"}]});
    let survivor = submit(&server, TEXT, &body);
    let ended = wait(&server, &survivor);
    assert_eq!(
        (&ended["state"], &ended["attempts"]),
        (&json!("succeeded"), &json!(2))
    );
    assert_eq!(
        result(&server, &survivor).expect(200).values(),
        [json!("survivor")]
    );

    let dead = submit(&server, TEXT, &json!({"inputs": [{"do": "abort"}]}));
    let ended = wait(&server, &dead);
    assert_eq!(
        (&ended["state"], &ended["attempts"]),
        (&json!("failed"), &json!(2))
    );
    assert_eq!(ended["can_retry"], true);
    assert_eq!(ended["error"]["code"], "model_fault");
    result(&server, &dead).expect(410);
    let letters = server.get("/v1/jobs?state=dead_letter").expect(200).json();
    assert_eq!(letters["data"][0]["id"], dead.as_str());
    server
        .request("POST", &format!("/v1/jobs/{dead}/retry"))
        .send()
        .expect(202);
    assert_eq!(
        wait(&server, &dead)["attempts"],
        2,
        "it had both of its attempts again"
    );

    let rejected = submit(
        &server,
        TEXT,
        &json!({"inputs": [{"do": "fail_item", "message": "no"}]}),
    );
    let ended = wait(&server, &rejected);
    assert_eq!(
        (&ended["state"], &ended["can_retry"]),
        (&json!("failed"), &json!(false))
    );
    assert_eq!(ended["attempts"], 1);
    assert_eq!(result(&server, &rejected).expect(422).error().0, "invalid_input");
    let (_, message) = server
        .request("POST", &format!("/v1/jobs/{rejected}/retry"))
        .send()
        .expect(409)
        .error();
    assert!(message.contains("can be retried"), "{message}");
}

#[test]
fn a_job_is_visible_only_to_its_key_and_to_the_admin_key() {
    let keys = "[server]\napi_keys = [\"the-first-key-1234\", \"the-second-key-123\"]\nadmin_key = \"the-admin-key-1234\"\n";
    let server = Scenario::new(&format!("{keys}{WORDS}")).start_unready();
    let with = |key: &str, call: Call<'_>| call.header("authorization", &format!("Bearer {key}")).send();
    let [first, second, admin] = ["the-first-key-1234", "the-second-key-123", "the-admin-key-1234"];
    eventually("the server to be ready", || match server.get("/readyz").status {
        200 => Ok(()),
        status => Err(status),
    });
    let submitted = with(first, job(&server, ECHO, &json!({"inputs": ["a"]}))).expect(202);
    let id = id_of(&submitted);
    job(&server, ECHO, &json!({"inputs": ["a"]})).send().expect(401);
    server.get("/v1/jobs").expect(401);
    let path = format!("/v1/jobs/{id}");
    with(first, server.request("GET", &format!("{path}?wait=30s"))).expect(200);
    with(admin, server.request("GET", &path)).expect(200);
    for (method, path) in [
        ("GET", path.clone()),
        ("GET", format!("{path}/result")),
        ("DELETE", path.clone()),
        ("POST", format!("{path}/retry")),
    ] {
        with(second, server.request(method, &path)).expect(404);
    }
    for (key, count) in [(first, 1), (second, 0), (admin, 1)] {
        let list = with(key, server.request("GET", "/v1/jobs")).expect(200).json();
        assert_eq!(list["data"].as_array().map(Vec::len), Some(count), "{key}");
    }
    // The scope of an idempotency key is the API key.
    let idempotent = |key| {
        let call = job(&server, ECHO, &json!({"inputs": ["a"]})).header("idempotency-key", "same");
        id_of(&with(key, call).expect(202))
    };
    assert_ne!(idempotent(first), idempotent(second));
    assert_eq!(idempotent(first), idempotent(first));
}

#[test]
fn jobs_survive_the_death_of_the_server() {
    let home = Scenario::new("");
    let database = home.dir().join("jobs.sqlite");
    let database = database.to_str().expect("a path is text");
    let gate = home.dir().join("gate");
    let scenario = || Scenario::new(M).env("INFERENCE_JOBS_PATH", database);
    let mut server = scenario().start();
    let running = submit(&server, TEXT, &json!({"inputs": waiting(&gate)}));
    wait_for_state(&server, &running, "running");
    let waiting: Vec<String> = (0..5)
        .map(|value| submit(&server, TEXT, &json!({"inputs": echoes([value])})))
        .collect();
    server.signal(Signal::KILL);
    server.wait_for_exit();
    std::fs::write(&gate, "open").expect("open the gate");
    let server = scenario().start();
    let ended = wait(&server, &running);
    assert_eq!(
        (&ended["state"], &ended["attempts"]),
        (&json!("succeeded"), &json!(2))
    );
    for (value, id) in waiting.iter().enumerate() {
        assert_eq!(wait(&server, id)["state"], "succeeded");
        assert_eq!(result(&server, id).expect(200).values(), [json!(value)]);
    }
}

#[test]
fn running_jobs_finish_before_the_server_exits_and_others_wait_for_the_next_one() {
    let home = Scenario::new("");
    let database = home.dir().join("jobs.sqlite");
    let database = database.to_str().expect("a path is text");
    let gate = home.dir().join("gate");
    let scenario = || {
        Scenario::new(&format!("[server]\ndrain_timeout = \"1h\"\n{M}")).env("INFERENCE_JOBS_PATH", database)
    };
    let mut server = scenario().start();
    let running = submit(&server, TEXT, &json!({"inputs": waiting(&gate)}));
    wait_for_state(&server, &running, "running");
    let later = job(&server, TEXT, &json!({"inputs": echoes(["later"])}))
        .header("x-job-not-before", "1s")
        .send();
    let later = id_of(&later.expect(202));
    // A client that waits is answered at once.
    let path = format!("/v1/jobs/{running}?wait=300s");
    let polling = server.in_background(move |client| client.request("GET", &path).try_send());
    server.wait_for_metric("inference_executing_items", &[("model", "m")], 1);
    server.signal(Signal::TERM);
    server.wait_for_log("shutting down");
    std::fs::write(&gate, "open").expect("open the gate");
    polling.reply().expect(200);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    let server = scenario().start();
    let ended = wait(&server, &running);
    assert_eq!(
        (&ended["state"], &ended["attempts"]),
        (&json!("succeeded"), &json!(1))
    );
    assert_eq!(wait(&server, &later)["state"], "succeeded");
}

#[test]
fn a_second_server_with_the_same_file_rejects_jobs_and_serves_everything_else() {
    let home = Scenario::new("");
    let database = home.dir().join("jobs.sqlite");
    let database = database.to_str().expect("a path is text");
    let scenario = || Scenario::new(WORDS).env("INFERENCE_JOBS_PATH", database);
    let first = scenario().start();
    let id = submit(&first, ECHO, &json!({"inputs": ["a"]}));
    let second = scenario().start();
    let (code, message) = job(&second, ECHO, &json!({"inputs": ["a"]}))
        .send()
        .expect(503)
        .error();
    assert_eq!(code, "unavailable");
    assert!(message.contains("another server uses it"), "{message}");
    assert!(!message.contains("jobs.sqlite"), "{message}");
    second.wait_for_log("is used by another server");
    second.get(&format!("/v1/jobs/{id}")).expect(503);
    second.post(ECHO, &json!({"inputs": ["a"]})).expect(200);
    first.shut_down();
    // It takes over without a restart.
    eventually("the second server to accept jobs", || {
        match job(&second, ECHO, &json!({"inputs": ["a"]})).send() {
            reply if reply.status == 202 => Ok(()),
            reply => Err(reply.text()),
        }
    });
    second.get(&format!("/v1/jobs/{id}")).expect(200);
}

#[test]
fn a_store_that_cannot_be_created_only_rejects_jobs() {
    let server = Scenario::new(WORDS)
        .env("INFERENCE_JOBS_PATH", "/proc/jobs.sqlite")
        .start();
    let rejected = job(&server, ECHO, &json!({"inputs": ["a"]})).send().expect(503);
    assert!(
        rejected.error().1.starts_with("the job store is unavailable"),
        "{}",
        rejected.text()
    );
    server.post(ECHO, &json!({"inputs": ["a"]})).expect(200);
    assert_eq!(server.get("/v1/jobs").expect(200).json()["data"], json!([]));
}

#[test]
fn jobs_can_be_disabled() {
    let server = start("enabled = false", WORDS);
    let rejected = job(&server, ECHO, &json!({"inputs": ["a"]})).send().expect(403);
    assert!(
        rejected.error().1.contains("jobs are disabled"),
        "{}",
        rejected.text()
    );
    server.post(ECHO, &json!({"inputs": ["a"]})).expect(200);
    assert!(!server.dir().join("jobs.sqlite").exists());
}

#[test]
fn a_job_waits_for_a_model_that_is_not_ready() {
    let home = Scenario::new("");
    let database = home.dir().join("jobs.sqlite");
    let database = database.to_str().expect("a path is text");
    let scenario = |model: &str| Scenario::new(model).env("INFERENCE_JOBS_PATH", database);
    let first = scenario(WORDS).start();
    let later = job(&first, ECHO, &json!({"inputs": ["a"]}))
        .header("x-job-not-before", "1s")
        .send();
    let id = id_of(&later.expect(202));
    first.shut_down();
    let other = WORDS.replace("words", "other");
    let second = scenario(&other).start();
    wait_for_jobs(&second, "words", "queued", 1);
    second.write_config(WORDS);
    assert!(second.reload());
    assert_eq!(wait(&second, &id)["state"], "succeeded");
}

#[test]
fn metrics_count_jobs_by_outcome_and_only_their_runs_count_as_items() {
    let server = start("", WORDS);
    let id = submit(&server, ECHO, &json!({"inputs": ["a", "b"]}));
    wait(&server, &id);
    server.wait_for_metric("inference_job_claims_total", &[("outcome", "succeeded")], 1);
    wait_for_jobs(&server, "words", "succeeded", 1);
    let metrics = server.metrics();
    let count = |name: &str, labels: &[(&str, &str)]| metrics.count(name, labels);
    assert_eq!(
        count("inference_job_submissions_total", &[("outcome", "created")]),
        1
    );
    assert_eq!(count("inference_job_attempts_total", &[]), 1);
    assert_eq!(
        count(
            "inference_items_total",
            &[("task", "echo"), ("outcome", "success")]
        ),
        2
    );
    // No client waited for it.
    let text = server.get("/metrics").expect(200).text();
    assert!(!text.contains("inference_requests_total{"), "{text}");
    let path = predict_path("words", "echo");
    server.post(&path, &json!({"inputs": ["a"]})).expect(200);
    assert_eq!(
        server
            .metrics()
            .count("inference_requests_total", &[("task", "echo")]),
        1
    );
}
