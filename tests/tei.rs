//! The protocol of text-embeddings-inference.

use serde_json::{Value as Json, json};

use crate::harness::plugins::{library, repository};
use crate::harness::vectors::{assert_close, list};
use crate::harness::{Scenario, Server, tools};

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
fn fewer_dimensions_are_scaled_only_if_the_client_wants_that() {
    let server = Scenario::misbehave("[models.embeddings]\ndimensions = \"truncate\"\n", "").start();
    let embed = |path: &str, request: Json| server.post(path, &request).expect(200).json();
    let (length, request) = (29f64.sqrt(), json!({"inputs": "to be", "dimensions": 2}));
    assert_close(
        &embed("/embed", request.clone())[0],
        &json!([5.0 / length, 2.0 / length]),
        "scaled",
    );
    let mut raw = request;
    raw["normalize"] = json!(false);
    assert_eq!(embed("/embed", raw), json!([[5.0, 2.0]]));
    let openai = embed("/v1/embeddings", json!({"input": "to be", "dimensions": 2}));
    assert_close(
        &openai["data"][0]["embedding"],
        &json!([5.0 / length, 2.0 / length]),
        "scaled",
    );
    let raw = json!({"input": "to be", "dimensions": 2, "normalized": false});
    assert_eq!(
        embed("/v1/embeddings", raw)["data"][0]["embedding"],
        json!([5.0, 2.0])
    );
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
    assert_eq!(
        post(
            "/predict",
            json!({"inputs": "a bc", "parameters": {"function_to_apply": "none", "top_k": 1}})
        ),
        json!([{"score": 4.0, "label": "letters"}])
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
    let info = |model: &str| {
        let info = server.get(&format!("/{model}/info")).expect(200).json();
        assert_eq!(info["max_input_length"], 64, "{info}");
        info["model_type"].clone()
    };
    let labels = ["lake", "mountain", "city"].into_iter().enumerate();
    let by_id: serde_json::Map<_, _> = labels
        .clone()
        .map(|(id, label)| (id.to_string(), label.into()))
        .collect();
    let by_label: serde_json::Map<_, _> = labels.map(|(id, label)| (label.to_owned(), id.into())).collect();
    assert_eq!(
        info("labels"),
        json!({"classifier": {"id2label": by_id, "label2id": by_label}})
    );
    assert_eq!(info("sparse"), json!({"embedding": {"pooling": "splade"}}));
    assert_eq!(info("tokens"), json!({"embedding": {"pooling": "none"}}));
    // Every model has a tokenizer. Their vocabularies have no punctuation.
    for model in ["sparse", "tokens", "labels"] {
        let request = json!({"inputs": text.trim_end_matches('?'), "add_special_tokens": false});
        let tokens = post(&format!("/{model}/tokenize"), request);
        let ids: Vec<&Json> = list(&tokens[0]).iter().map(|token| &token["id"]).collect();
        let decoded = post(&format!("/{model}/decode"), json!({"ids": ids}));
        // The files of these small models have no decoder, which would join the parts of words.
        let joined = decoded[0].as_str().expect("a text").replace(" ##", "");
        assert_eq!(joined.replace(' ', ""), "howtallismontblanc", "{model}");
    }
    assert_eq!(
        post("/labels", json!({"inputs": text})),
        native("labels", "classify")[0]
    );
}

/// A server with all-MiniLM-L6-v2, if `tests/install` has downloaded it.
fn minilm() -> Option<Server> {
    let folder = tools::cached("models/all-MiniLM-L6-v2", "model.safetensors")?;
    library("sentence_embeddings");
    let config = format!(
        "[[models]]\nname = \"minilm\"\nplugin = \"sentence_embeddings\"\n\n[models.embeddings]\ntoken_ids = \"model\"\n\
         \n[models.settings]\nfolder = \"{}\"\n",
        folder.display()
    );
    Some(Scenario::new(&config).start())
}

#[test]
fn clients_of_text_embeddings_inference_use_minilm_without_settings() {
    let Some(server) = minilm() else { return };
    let post = |path: &str, request: Json| server.post(path, &request).expect(200).json();
    let info = server.get("/info").expect(200).json();
    for (member, expected) in [
        ("model_id", json!("minilm")),
        ("model_type", json!({"embedding": {"pooling": "mean"}})),
        ("model_dtype", json!("float32")),
        ("max_input_length", json!(256)),
        ("auto_truncate", json!(false)),
    ] {
        assert_eq!(info[member], expected, "{info}");
    }
    let text = "Hello, Mont Blanc";
    let tokens = post("/tokenize", json!({"inputs": text}));
    let special =
        |id: u64, text: &str| json!({"id": id, "text": text, "special": true, "start": null, "stop": null});
    let token = |id: u64, text: &str, start: u64| json!({"id": id, "text": text, "special": false, "start": start, "stop": start + text.len() as u64});
    assert_eq!(
        tokens,
        json!([[
            special(101, "[CLS]"),
            token(7592, "Hello", 0),
            token(1010, ",", 5),
            token(18318, "Mont", 7),
            token(18698, "Blanc", 12),
            special(102, "[SEP]"),
        ]])
    );
    let ids: Vec<&Json> = list(&tokens[0]).iter().map(|token| &token["id"]).collect();
    assert_eq!(post("/decode", json!({"ids": ids})), json!(["hello, mont blanc"]));
    assert_eq!(
        post("/decode", json!({"ids": [ids], "skip_special_tokens": false})),
        json!(["[CLS] hello, mont blanc [SEP]"])
    );
    // The ids of the whole sequence stand for the text, in both protocols.
    let vector = post("/embed", json!({"inputs": text}));
    assert_eq!(list(&vector[0]).len(), 384);
    assert_eq!(post("/embed", json!({"inputs": ids})), vector);
    assert_eq!(
        post("/minilm/embed", json!({"inputs": [ids, text]}))[0],
        vector[0]
    );
    for path in ["/v1/embeddings", "/embeddings", "/minilm/v1/embeddings"] {
        let openai = post(path, json!({"model": "minilm", "input": [ids]}));
        assert_close(&openai["data"][0]["embedding"], &vector[0], path);
        assert_eq!(openai["usage"]["prompt_tokens"], 6);
    }
    // The mean of the vectors of all tokens is the unscaled vector of the text.
    let all = post("/embed_all", json!({"inputs": text}));
    let rows = list(&all[0]);
    assert_eq!(rows.len(), 6);
    let number = |value: &Json| value.as_f64().expect("a number");
    let mean: Vec<f64> = (0..384)
        .map(|column| rows.iter().map(|row| number(&row[column])).sum::<f64>() / 6.0)
        .collect();
    let raw = post("/", json!({"inputs": text, "normalize": false}));
    assert_close(&raw[0], &json!(mean), "mean");
    for (path, request, status, kind, part) in [
        ("/embed", json!({"inputs": []}), 400, "Empty", "no items"),
        (
            "/embed",
            json!({"inputs": vec!["a"; 2049]}),
            413,
            "Validation",
            "too many",
        ),
        (
            "/embed",
            json!({"inputs": "word ".repeat(300)}),
            422,
            "Validation",
            "302 tokens",
        ),
        ("/embed", json!({"inputs": [30_522]}), 422, "Validation", "30522"),
        ("/decode", json!({"ids": [30_522]}), 422, "Validation", "30522"),
        (
            "/embed_all",
            json!({"inputs": "a", "normalize": true}),
            422,
            "Validation",
            "`normalize`",
        ),
        (
            "/tokenize",
            json!({"inputs": "a", "prompt_name": "x"}),
            422,
            "Validation",
            "unknown prompt",
        ),
        (
            "/embed_sparse",
            json!({"inputs": "a"}),
            424,
            "Backend",
            "sparse embeddings",
        ),
        ("/predict", json!({"inputs": "a"}), 424, "Backend", "labels"),
        (
            "/rerank",
            json!({"query": "a", "texts": ["b"]}),
            424,
            "Backend",
            "ranks documents",
        ),
    ] {
        let (got, got_kind, message) = error(&server, path, &request);
        assert_eq!((got, got_kind.as_str()), (status, kind), "{path}: {message}");
        assert!(message.contains(part), "{path}: {message}");
    }
}

#[test]
fn a_pair_is_truncated_at_the_side_that_the_client_chooses() {
    library("sentence_embeddings");
    let cross = repository().join("plugins/sentence-embeddings/tests/models/cross");
    let config = format!(
        "[[models]]\nname = \"cross\"\nplugin = \"sentence_embeddings\"\n[models.settings]\nfolder = \"{}\"\n",
        cross.display()
    );
    let server = Scenario::new(&config).start();
    let (start, end) = ("lake ".repeat(200), "deep ".repeat(200));
    let score = |text: &str, direction: Option<&str>| {
        let mut request =
            json!({"query": "How tall?", "texts": [text], "truncate": true, "raw_scores": true});
        if let Some(direction) = direction {
            request["truncation_direction"] = direction.into();
        }
        server.post("/rerank", &request).expect(200).json()[0]["score"].clone()
    };
    let both = format!("{start}{end}");
    assert_eq!(score(&both, Some("Right")), score(&start, None));
    assert_eq!(score(&both, Some("Left")), score(&end, Some("Left")));
    assert_ne!(score(&both, Some("Left")), score(&both, Some("Right")));
    // A model that only ranks does so at its name alone.
    let ranked = server.post("/", &json!({"query": "How tall?", "texts": ["a"]}));
    assert_eq!(list(&ranked.expect(200).json()).len(), 1);
    let (status, kind, message) = error(&server, "/", &json!({"inputs": "a"}));
    assert_eq!((status, kind.as_str()), (400, "Validation"), "{message}");
    assert!(message.contains("missing member `query`"), "{message}");
    let (status, kind, _) = error(&server, "/rerank", &json!({"query": "a", "texts": []}));
    assert_eq!((status, kind.as_str()), (400, "Empty"));
    let (status, kind, _) = error(
        &server,
        "/rerank",
        &json!({"query": "a", "texts": vec!["b"; 2049]}),
    );
    assert_eq!((status, kind.as_str()), (413, "Validation"));
    assert_eq!(
        server.get("/info").expect(200).json()["model_type"],
        json!({"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}})
    );
}

#[test]
fn a_request_to_the_name_of_a_model_alone_can_be_a_job() {
    let server = start();
    let request = json!({"inputs": "to be", "normalize": false});
    for path in ["/", "/m"] {
        let job = server
            .request("POST", path)
            .header("prefer", "respond-async")
            .json(&request)
            .send()
            .expect(202)
            .json();
        let id = job["id"].as_str().expect("an ID").to_owned();
        let finished = server.get(&format!("/v1/jobs/{id}?wait=30s")).expect(200).json();
        assert_eq!(finished["state"], "succeeded", "{finished}");
        let result = server.get(&format!("/v1/jobs/{id}/result")).expect(200).json();
        assert_eq!(result, json!([[5.0, 2.0, 0.5]]), "{path}");
    }
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
            "Empty",
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
            "/similarity",
            json!({"inputs": {"source_sentence": "a", "sentences": "b"}}),
            400,
            "Validation",
            "`sentences`: expected an array of strings, got a string",
        ),
        (
            "/embed_sparse",
            json!({"inputs": "a", "normalize": false}),
            422,
            "Validation",
            "`normalize`",
        ),
        (
            "/predict",
            json!({"inputs": "a", "prompt_name": "q"}),
            422,
            "Validation",
            "`prompt_name`",
        ),
        (
            "/predict",
            json!({"inputs": "a", "parameters": {"function_to_apply": "softmax"}}),
            422,
            "Validation",
            "`softmax`",
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
