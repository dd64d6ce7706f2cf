//! The protocol of text-embeddings-inference.

use serde_json::{Value as Json, json};

use crate::harness::plugins::{library, repository};
use crate::harness::vectors::{assert_close, list};
use crate::harness::{Scenario, Server};

/// A server with one model `m` of the plugin `misbehave`.
fn start() -> Server {
    Scenario::misbehave("", "").start()
}

/// The status of an error, its type and its message.
fn error(server: &Server, path: &str, body: &Json) -> (u16, String, String) {
    let reply = server.post(path, body);
    let json = reply.json();
    let text = |member: &str| json[member].as_str().unwrap_or_default().to_owned();
    (reply.status, text("error_type"), text("error"))
}

#[test]
fn texts_are_embedded() {
    let server = start();
    let raw = |inputs: Json| {
        let request = json!({"inputs": inputs, "normalize": false});
        server.post("/embed", &request).expect(200).json()
    };
    assert_eq!(raw(json!("to be")), json!([[5.0, 2.0, 0.5]]));
    assert_eq!(
        raw(json!(["to be", "a"])),
        json!([[5.0, 2.0, 0.5], [1.0, 1.0, 0.5]])
    );
    // Token ids are those of the model.
    assert_eq!(
        raw(json!([[7, 8], [1]])),
        json!([[15.0, 2.0, 0.5], [1.0, 1.0, 0.5]])
    );
    assert_eq!(
        raw(json!(["to be", [7, 8]])),
        json!([[5.0, 2.0, 0.5], [15.0, 2.0, 0.5]])
    );
    let reply = server
        .post("/embed", &json!({"inputs": "aa b"}))
        .expect(200)
        .json();
    let length = (16.0f64 + 4.0 + 0.25).sqrt();
    assert_close(
        &reply[0],
        &json!([4.0 / length, 2.0 / length, 0.5 / length]),
        "normalized",
    );
    let labels = [
        ("model", "m"),
        ("task", "embed"),
        ("protocol", "tei"),
        ("status", "200"),
    ];
    assert_eq!(server.metrics().count("inference_requests_total", &labels), 5);
}

#[test]
fn the_options_of_clients_are_honored() {
    let server = start();
    let long = "a bb ccc dddd eeeee";
    let embed = |options: Json| {
        let mut request = json!({"inputs": long, "normalize": false});
        for (name, value) in options.as_object().expect("an object") {
            request[name] = value.clone();
        }
        server.post("/embed", &request)
    };
    assert_eq!(
        embed(json!({"truncate": true})).expect(200).json(),
        json!([[13.0, 4.0, 0.5]])
    );
    for left in ["left", "Left"] {
        let reply = embed(json!({"truncate": true, "truncation_direction": left}))
            .expect(200)
            .json();
        assert_eq!(reply, json!([[17.0, 4.0, 0.5]]));
    }
    // Without permission, texts are not truncated.
    for options in [json!({}), json!({"truncate": false}), json!({"truncate": null})] {
        embed(options).expect(422);
    }
    let request = json!({"inputs": "to be", "normalize": false, "prompt_name": "find"});
    assert_eq!(
        server.post("/embed", &request).expect(200).json(),
        json!([[10.0, 3.0, 0.5]])
    );
    embed(json!({"truncate": true, "truncation_direction": "up"})).expect(400);
}

#[test]
fn every_other_route_runs_the_task_that_is_declared_for_it() {
    let server = start();
    let post = |path: &str, body: Json| server.post(path, &body).expect(200).json();
    assert_eq!(
        post("/embed_sparse", json!({"inputs": "to bee"})),
        json!([[{"index": 2, "value": 0.5}, {"index": 3, "value": 0.5}]])
    );
    assert_eq!(
        post("/embed_all", json!({"inputs": ["to bee", "a"]})),
        json!([[[2.0, 1.0], [3.0, 1.0]], [[1.0, 1.0]]])
    );
    let scores = |letters: f64, words: f64| json!([{"score": letters, "label": "letters"}, {"score": words, "label": "words"}]);
    assert_eq!(
        post("/predict", json!({"inputs": "a bc"})),
        scores(4.0 / 6.0, 2.0 / 6.0).rounded()
    );
    assert_eq!(
        post("/predict", json!({"inputs": ["a", "bc"], "raw_scores": true})),
        scores(4.0, 2.0)
    );
    assert_eq!(
        post(
            "/predict",
            json!({"inputs": [["a"], ["a", "bc"]], "raw_scores": true})
        ),
        json!([scores(1.0, 1.0).sorted_as_written(), scores(4.0, 2.0)])
    );
    let token = |id: u64, text: &str, start: u64| json!({"id": id, "text": text, "special": false, "start": start, "stop": start + id});
    let special = json!({"id": 0, "text": "[CLS]", "special": true, "start": null, "stop": null});
    assert_eq!(
        post("/tokenize", json!({"inputs": ["to bee"]})),
        json!([[special, token(2, "to", 0), token(3, "bee", 3)]])
    );
    assert_eq!(
        post("/tokenize", json!({"inputs": "to", "add_special_tokens": false})),
        json!([[token(2, "to", 0)]])
    );
    assert_eq!(post("/decode", json!({"ids": [0, 2, 3]})), json!(["xx xxx"]));
    assert_eq!(
        post(
            "/decode",
            json!({"ids": [[0, 2], [1]], "skip_special_tokens": false})
        ),
        json!(["[CLS] xx", "x"])
    );
    let sentences = json!({"source_sentence": "to be", "sentences": ["to be", "a"]});
    let cosine = (5.0 + 2.0 + 0.25) / ((25.0 + 4.0 + 0.25f64).sqrt() * 2.25f64.sqrt());
    for body in [
        json!({"inputs": sentences}),
        json!({"inputs": sentences, "parameters": {"truncate": true}}),
    ] {
        assert_close(
            &post("/similarity", body.clone()),
            &json!([1.0, cosine]),
            "similarity",
        );
        // What the model is for follows from the request.
        assert_close(&post("/", body), &json!([1.0, cosine]), "similarity");
    }
    assert_eq!(
        post("/", json!({"inputs": "to be", "normalize": false})),
        json!([[5.0, 2.0, 0.5]])
    );
    let info = server.get("/info").expect(200).json();
    assert_eq!(
        (&info["model_id"], &info["model_type"]["embedding"]["pooling"]),
        (&json!("m"), &json!("unknown"))
    );
    assert!(info["max_client_batch_size"].is_u64(), "{info}");
    server.get("/health").expect(200);
}

/// Comparison of scores, which are computed in single precision.
trait Scores {
    fn rounded(self) -> Json;
    fn sorted_as_written(self) -> Json;
}

impl Scores for Json {
    fn rounded(mut self) -> Json {
        for scored in self.as_array_mut().into_iter().flatten() {
            let score = scored["score"].as_f64().unwrap_or_default() as f32;
            // The shortest decimal of the single-precision number, as in the reply.
            scored["score"] = serde_json::from_str(&score.to_string()).expect("a number");
        }
        self
    }

    /// Labels with equal scores are in the order of the task.
    fn sorted_as_written(mut self) -> Json {
        if let Some(list) = self.as_array_mut() {
            list.reverse();
        }
        self
    }
}

#[test]
fn the_name_of_the_model_is_in_front_of_the_path() {
    library("misbehave");
    library("sentence_embeddings");
    let cross = repository().join("plugins/sentence-embeddings/tests/models/cross");
    let server = Scenario::new(&format!(
        "[[models]]\nname = \"org/a\"\nplugin = \"misbehave\"\n[[models]]\nname = \"b\"\nplugin = \"misbehave\"\n\
         [models.tasks.text]\nroute = \"/x/embed\"\n[[models]]\nname = \"x\"\nplugin = \"misbehave\"\n\
         [[models]]\nname = \"cross\"\nplugin = \"sentence_embeddings\"\n[models.settings]\nfolder = \"{}\"\n",
        cross.display()
    ))
    .start();
    let request = json!({"inputs": "to be", "normalize": false});
    for path in [
        "/org/a/embed",
        "/org%2Fa/embed",
        "/b/embed",
        "/b.embed/embed",
        "/org/a",
        "/org%2Fa",
        "/b",
    ] {
        let reply = server.post(path, &request).expect(200).json();
        assert_eq!(reply, json!([[5.0, 2.0, 0.5]]), "{path}");
    }
    let tokens = server.post(
        "/org/a/tokenize",
        &json!({"inputs": "to", "add_special_tokens": false}),
    );
    assert_eq!(tokens.expect(200).json()[0][0]["text"], "to");
    assert_eq!(server.get("/org/a/info").expect(200).json()["model_id"], "org/a");
    server.get("/b/health").expect(200);
    server.get("/nothing/health").expect(404);
    for path in ["/cross/rerank", "/cross"] {
        let ranked = server
            .post(path, &json!({"query": "q", "texts": ["a", "b"]}))
            .expect(200)
            .json();
        assert_eq!(list(&ranked).len(), 2, "{path}");
    }
    // At the root, several models could answer.
    let (status, kind, message) = error(&server, "/embed", &request);
    assert_eq!((status, kind.as_str()), (424, "Backend"));
    assert_eq!(
        message,
        "several tasks can answer: put the name of one in front of the path, as in `/MODEL/embed`: b.embed, org/a.embed, \
         x.embed"
    );
    // Only one model ranks.
    server
        .post("/rerank", &json!({"query": "q", "texts": ["a"]}))
        .expect(200);
    // The route that a task is configured with takes precedence over one below a model.
    let reply = server
        .post("/x/embed", &json!({"input": {"value": 7}}))
        .expect(200)
        .json();
    assert_eq!(reply["model"], "b");
    // Neither takes precedence over the routes of the server.
    server.get("/b/nothing").expect(404);
    server.request("GET", "/b/embed").send().expect(405);
    server.post("/nothing/embed", &request).expect(404);
    server.post("/nothing", &request).expect(404);
}

#[test]
fn models_of_sentence_transformers_answer_the_routes_of_their_kind() {
    library("sentence_embeddings");
    let models = repository().join("plugins/sentence-embeddings/tests/models/architectures");
    let model = |name: &str, folder: &str| {
        format!(
            "[[models]]\nname = \"{name}\"\nplugin = \"sentence_embeddings\"\n\n[models.settings]\nfolder = \"{}\"\n\n",
            models.join(folder).display()
        )
    };
    let config =
        model("sparse", "sparse_bert") + &model("tokens", "tokens") + &model("labels", "labels_bert");
    let server = Scenario::new(&config).start();
    let text = "How tall is Mont Blanc?";
    let native = |model: &str, task: &str| server.predict(model, task, &json!([text])).expect(200).outputs();
    let post = |path: &str, request: Json| server.post(path, &request).expect(200).json();
    let sparse = native("sparse", "query");
    for request in [
        ("/sparse.query/embed_sparse", json!({"inputs": text})),
        ("/embed_sparse", json!({"inputs": text, "prompt_name": "query"})),
    ] {
        assert_eq!(post(request.0, request.1), json!(sparse));
    }
    assert!(!list(&sparse[0]).is_empty());
    let tokens = &native("tokens", "passage")[0]["embeddings"];
    assert_eq!(
        post("/tokens.passage/embed_all", json!({"inputs": [text]})),
        json!([tokens])
    );
    assert_eq!(
        post("/labels/predict", json!({"inputs": text})),
        native("labels", "classify")[0]
    );
    assert_eq!(
        post("/labels", json!({"inputs": text})),
        native("labels", "classify")[0]
    );
}

#[test]
fn errors_have_the_shape_of_the_protocol() {
    let server = start();
    for (path, body, status, kind, part) in [
        ("/embed", json!({}), 400, "Validation", "missing member `inputs`"),
        (
            "/embed",
            json!({"inputs": []}),
            400,
            "Validation",
            "`inputs` has no items",
        ),
        (
            "/embed",
            json!({"inputs": "a", "dimensions": 2}),
            400,
            "Validation",
            "always have 3 dimensions",
        ),
        ("/embed", json!({"inputs": "nan"}), 500, "Backend", "NaN"),
        (
            "/embed_all",
            json!({"inputs": "a", "dimensions": 2}),
            422,
            "Validation",
            "`dimensions`",
        ),
        (
            "/embed_sparse",
            json!({"inputs": "a", "truncation_direction": "Left"}),
            422,
            "Validation",
            "Left",
        ),
        (
            "/similarity",
            json!({"inputs": {"sentences": ["a"]}}),
            400,
            "Validation",
            "`source_sentence`",
        ),
        (
            "/predict",
            json!({"inputs": ["a"]}),
            400,
            "Validation",
            "expected a pair",
        ),
        (
            "/decode",
            json!({"ids": "a"}),
            400,
            "Validation",
            "expected an array of token ids",
        ),
        (
            "/decode",
            json!({"ids": [101]}),
            422,
            "Validation",
            "unknown token 101",
        ),
        (
            "/tokenize",
            json!({"inputs": [1, 2]}),
            400,
            "Validation",
            "expected a string",
        ),
        (
            "/tokenize",
            json!({"inputs": "a", "prompt_name": "q"}),
            422,
            "Validation",
            "`prompt_name`",
        ),
        (
            "/nothing/embed",
            json!({"inputs": "a"}),
            404,
            "Validation",
            "unknown model `nothing`",
        ),
    ] {
        let (got, got_kind, message) = error(&server, path, &body);
        assert_eq!(
            (got, got_kind.as_str()),
            (status, kind),
            "{path} {body}: {message}"
        );
        assert!(message.contains(part), "{path} {body}: {message}");
    }
    let words = Scenario::new("[[models]]\nname = \"words\"\nplugin = \"template\"\n").start();
    for (path, part) in [
        ("/embed", "no model produces embeddings"),
        ("/embed_sparse", "no model produces sparse embeddings"),
        ("/embed_all", "no model produces vectors of tokens"),
        ("/predict", "no model scores labels"),
        ("/tokenize", "no model tokenizes texts"),
        (
            "/words/embed",
            "`words` does not produce embeddings; available: none",
        ),
        ("/", "no model produces embeddings"),
    ] {
        let (status, kind, message) = error(&words, path, &json!({"inputs": "a"}));
        assert_eq!((status, kind.as_str()), (424, "Backend"), "{path}: {message}");
        assert!(message.contains(part), "{path}: {message}");
    }
    assert_eq!(words.get("/info").status, 424);
}
