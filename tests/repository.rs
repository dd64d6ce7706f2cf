//! Loading and unloading individual models over the Open Inference Protocol, with the admin key.

use serde_json::{Value as Json, json};

use crate::harness::grpc::Grpc;
use crate::harness::{Reply, Scenario, Server, eventually};

const KEY: &str = "an-administrator";

/// Returns a configuration with two models. `shortest_word` is a setting of the second one.
fn config(shortest_word: u64) -> String {
    format!(
        "[server]\nadmin_key = \"{KEY}\"\n\n[[models]]\nname = \"other\"\nplugin = \"template\"\n\n\
         [[models]]\nname = \"words\"\nplugin = \"template\"\ndefault_task = \"stats\"\n\
         [models.settings]\nshortest_word = {shortest_word}\n"
    )
}

fn request_change(server: &Server, model: &str, what: &str) -> Reply {
    // Like clients do: an empty body without a content type.
    server
        .request("POST", &format!("/v2/repository/models/{model}/{what}"))
        .header("authorization", &format!("Bearer {KEY}"))
        .send()
}

fn count_words(server: &Server) -> Reply {
    server.post(
        "/v1/models/words/predict",
        &json!({"input": {"text": "to be or not"}}),
    )
}

fn index(server: &Server) -> Json {
    server
        .request("POST", "/v2/repository/index")
        .send()
        .expect(200)
        .json()
}

#[test]
fn a_model_is_unloaded_and_reloaded_while_others_keep_serving() {
    let server = Scenario::new(&config(0)).start();
    assert_eq!(
        request_change(&server, "words", "unload").expect(200).json(),
        json!({})
    );
    assert_eq!(
        index(&server),
        json!([
            {"name": "other", "version": "1", "state": "READY", "reason": ""},
            {"name": "words", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"},
        ])
    );
    let (code, message) = count_words(&server).expect(503).error();
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("unavailable", "model `words` is unloaded")
    );
    server.get("/v2/models/words/ready").expect(503);
    // The server remains ready, because the model was unloaded on request, and the other model keeps serving.
    server.get("/v2/health/ready").expect(200);
    server.predict("other", "echo", &json!(["a"])).expect(200);

    request_change(&server, "words", "load").expect(200);
    assert_eq!(count_words(&server).expect(200).json()["output"]["words"], 4);
    assert_eq!(server.generation("words"), 3, "two were loaded at first");
}

#[tokio::test]
async fn a_task_of_an_unavailable_model_is_unavailable_in_every_protocol() {
    let config = format!(
        "{}[models.tasks.echo]\nroute = \"/say\"\n\n[[models]]\nname = \"broken\"\nplugin = \"template\"\n\
         [models.settings]\nshortest_word = 101\n[models.tasks.echo]\nroute = \"/broken\"\n",
        config(0)
    );
    let server = Scenario::new(&config)
        .argument("--grpc-port")
        .argument("0")
        .start_unready();
    eventually("the model to fail", || {
        let state = server.model("broken")["state"].clone();
        (state == "failed" && server.model("words")["ready"] == true)
            .then_some(())
            .ok_or(state)
    });
    let mut grpc = Grpc::connect(server.grpc_address()).await;
    assert_eq!(grpc.is_serving("words.echo").await, Some(true));
    request_change(&server, "words", "unload").expect(200);
    let texts = json!({"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["a"]}]});
    let rows = json!({"instances": ["a"]});
    let native = json!({"inputs": ["a"]});
    for (path, status) in [
        ("words.echo", 503),
        ("words.nothing", 404),
        ("broken.anything", 503),
    ] {
        for (rest, body) in [
            ("/infer", Some(&texts)),
            ("", None),
            ("/ready", None),
            ("/config", None),
            ("/stats", None),
        ] {
            let path = format!("/v2/models/{path}{rest}");
            let reply = body.map_or_else(|| server.get(&path), |body| server.post(&path, body));
            assert_eq!(reply.status, status, "{path}: {}", reply.text());
        }
        server
            .post(&format!("/v1/models/{path}:predict"), &rows)
            .expect(status);
        server.get(&format!("/v1/models/{path}/metadata")).expect(status);
    }
    for path in [
        "/say",
        "/broken",
        "/v1/models/words/tasks/echo/predict",
        "/v1/models/broken/tasks/x/predict",
    ] {
        let (code, _) = server.post(path, &native).expect(503).error();
        assert_eq!(code, "unavailable", "{path}");
    }
    let model = server.get("/v1/models/words.echo").expect(200).json();
    assert_eq!(
        (&model["name"], &model["ready"], &model["state"]),
        (&json!("words.echo"), &json!(false), &json!("unloaded"))
    );
    assert_eq!(model["model_version_status"][0]["state"], "END");
    assert_eq!(
        server.get("/v1/models/broken.any").expect(200).json()["state"],
        "failed"
    );
    server.get("/v1/models/words.nothing").expect(404);
    for (service, serving) in [
        ("words", Some(false)),
        ("words.echo", Some(false)),
        ("words.nothing", None),
        ("broken.anything", Some(false)),
        ("other.echo", Some(true)),
    ] {
        assert_eq!(grpc.is_serving(service).await, serving, "{service}");
    }
    request_change(&server, "words", "load").expect(200);
    server.post("/say", &native).expect(200);
    assert_eq!(grpc.is_serving("words.echo").await, Some(true));
}

#[test]
fn a_model_is_loaded_with_the_current_configuration() {
    let server = Scenario::new(&config(0)).start();
    let generation = server.generation("words");
    request_change(&server, "words", "load").expect(200);
    assert_eq!(
        server.generation("words"),
        generation,
        "nothing changed, but it was loaded"
    );
    server.write_config(&config(3));
    request_change(&server, "words", "load").expect(200);
    assert_eq!(count_words(&server).expect(200).json()["output"]["words"], 1);
    server.write_config(&config(101));
    let rejected = request_change(&server, "words", "load").expect(500).json();
    let message = rejected["error"].as_str().expect("an error is a text");
    assert!(
        message.starts_with("model `words` cannot be loaded: "),
        "{message}"
    );
    assert_eq!(count_words(&server).expect(200).json()["output"]["words"], 1);
    request_change(&server, "nothing", "load").expect(404);
    request_change(&server, "nothing", "unload").expect(404);
}

#[test]
fn a_model_whose_short_route_belongs_to_another_live_model_is_not_loaded() {
    let routes = |of_one: &str, of_two: &str| {
        let model = |name: &str, route: &str| {
            format!(
                "[[models]]\nname = \"{name}\"\nplugin = \"template\"\n[models.tasks.echo]\nroute = \"{route}\"\n"
            )
        };
        let (one, two) = (model("one", of_one), model("two", of_two));
        format!("[server]\nadmin_key = \"{KEY}\"\n{one}{two}")
    };
    let server = Scenario::new(&routes("/a", "/b")).start();
    let generation = server.generation("one");
    server.write_config(&routes("/b", "/c"));
    let rejected = request_change(&server, "one", "load").expect(500).json();
    let message = rejected["error"].as_str().expect("an error is a text");
    for part in ["model `one`", "`/b`", "task `echo` of the live model `two`"] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    assert_eq!(server.generation("one"), generation);
    let headers = server.post("/b", &json!({"input": "x"})).expect(200);
    assert_eq!(
        headers.json()["model"],
        "two",
        "the route still leads to its first owner"
    );

    // After the owner has been unloaded, the route is available.
    request_change(&server, "two", "load").expect(200);
    request_change(&server, "one", "load").expect(200);
    assert_eq!(
        server.post("/b", &json!({"input": "x"})).expect(200).json()["model"],
        "one"
    );
    server.post("/a", &json!({"input": "x"})).expect(404);
}

#[test]
fn a_reload_loads_unloaded_models() {
    let server = Scenario::new(&config(0)).start();
    request_change(&server, "words", "unload").expect(200);
    assert!(server.reload());
    count_words(&server).expect(200);
}

#[test]
fn unsupported_parameters_of_loading_and_unloading_are_rejected_by_name() {
    let server = Scenario::new(&config(0)).start();
    let generation = server.generation("words");
    let request = |what: &str, body: Json| {
        let reply = server
            .request("POST", &format!("/v2/repository/models/words/{what}"))
            .header("authorization", &format!("Bearer {KEY}"))
            .json(&body)
            .send();
        let message = reply.json()["error"].as_str().unwrap_or_default().to_owned();
        (reply.status, message)
    };
    for (what, body, named) in [
        (
            "load",
            json!({"parameters": {"config": "{\"max_batch_size\": 4}"}}),
            "`config`",
        ),
        (
            "load",
            json!({"parameters": {"file:1/model.onnx": "AA=="}}),
            "`file:1/model.onnx`",
        ),
        ("load", json!({"parameters": {"priority": 1}}), "`priority`"),
        ("load", json!({"config": "{}"}), "`config`"),
        ("load", json!({"repository_name": "other"}), "`other`"),
        ("load", json!([]), "got an array"),
        ("unload", json!({"parameters": {"force": true}}), "`force`"),
        (
            "unload",
            json!({"parameters": {"unload_dependents": "yes"}}),
            "`unload_dependents`",
        ),
    ] {
        let (status, message) = request(what, body.clone());
        assert_eq!(status, 400, "{what} {body}: {message}");
        assert!(message.contains(named), "{what} {body}: {message}");
    }
    assert_eq!(
        server.generation("words"),
        generation,
        "nothing was loaded or unloaded"
    );
    // In the form that Triton's client sends.
    assert_eq!(
        request("unload", json!({"parameters": {"unload_dependents": false}})).0,
        200
    );
    assert_eq!(request("load", json!({"parameters": {}})).0, 200);
    assert_eq!(request("load", json!({})).0, 200);
}

#[test]
fn only_the_admin_key_can_load_and_unload() {
    let path = "/v2/repository/models/words/unload";
    let server = Scenario::new(&config(0)).start();
    let rejected = server.request("POST", path).send().expect(401);
    assert_eq!(rejected.header("www-authenticate"), Some("Bearer"));
    let wrong = server
        .request("POST", path)
        .header("authorization", "Bearer an-administrat0r");
    wrong.send().expect(401);
    count_words(&server).expect(200);

    let without = Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\n").start();
    let rejected = without.request("POST", path).send().expect(403).json();
    assert_eq!(
        rejected["error"],
        "loading and unloading models is disabled; set `admin_key` in [server] to enable it"
    );
}

#[test]
fn a_model_that_was_unloaded_does_not_count_for_readiness_and_is_loaded_again_by_a_reload() {
    let server = Scenario::new(&config(0)).start();
    request_change(&server, "words", "unload").expect(200);
    let line = server.wait_for_log("unloaded model `words` for a client");
    assert!(line.contains("/readyz") && line.contains("reload"), "{line}");
    server.get("/readyz").expect(200);
    assert!(server.reload());
    server.wait_for_log("loading model `words` (it was unloaded by a client");
    count_words(&server).expect(200);
}

#[test]
fn only_the_operator_sees_the_full_reason_of_a_failure() {
    let server = Scenario::new(&config(101)).start_unready();
    let describe = |key: Option<&str>| {
        let call = server.request("GET", "/v1/models/words");
        match key {
            Some(key) => call.header("authorization", &format!("Bearer {key}")).send(),
            None => call.send(),
        }
        .expect(200)
        .json()
    };
    server.wait_for_log("not ready");
    let (full, public) = (describe(Some(KEY)), describe(None));
    let (full, public) = (full["reason"].to_string(), public["reason"].to_string());
    assert!(
        full.contains("shortest_word") && full.contains("models.toml"),
        "{full}"
    );
    assert!(
        !public.contains("shortest_word") && !public.contains("models.toml"),
        "{public}"
    );
    assert_eq!(describe(Some("a-stranger"))["reason"].to_string(), public);

    server.write_config("[server]\nadmin_key = 5\n");
    assert!(!server.reload());
    let (full, public) = (describe(Some(KEY)), describe(None));
    let error = |model: &Json| model["last_reload_error"].to_string();
    assert!(error(&full).contains("models.toml:2"), "{full}");
    assert!(error(&public).contains("see the server's log"), "{public}");
    assert!(!error(&public).contains("models.toml"), "{public}");
}

#[test]
fn a_reload_names_the_files_that_changed_and_the_settings_that_need_a_restart() {
    let config = |rest: &str| {
        format!(
            "{rest}\n[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n[models.settings]\nload_fault_until = \"$DIR/weights\"\n"
        )
    };
    let server = Scenario::new(&config("")).start();
    std::fs::write(server.dir().join("weights"), "new").expect("change the directory of the scenario");
    server.write_config(&config(
        "[server]\nport = 1\nrequest_timeout = \"9s\"\n[logging]\nlevel = \"debug\"\n[metrics]\nstage_buckets = [\"1s\"]",
    ));
    assert!(server.reload());
    let line = server.wait_for_log("loading model `m` (files changed");
    assert!(line.contains("/weights)"), "{line}");
    let line = server.wait_for_log("restart the server to apply changes of");
    let keys = "`level` in [logging], `stage_buckets` in [metrics]";
    assert!(line.ends_with(keys), "{line}");
}
