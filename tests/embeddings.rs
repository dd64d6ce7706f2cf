//! Embeddings in the protocols of OpenAI and Cohere: names with a slash, keys of Azure, token ids, dimensions, prompts, and the
//! embeddings of every plugin.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use crate::harness::plugins::{library, repository};
use crate::harness::vectors::{assert_close, list, reference};
use crate::harness::{Scenario, Server};

const REFERENCE: &str = "plugins/sentence-embeddings/tests/reference/small.json";

/// A model of the plugin `misbehave`, whose embeddings are the number of letters, that of words, and 0.5.
fn model(name: &str, more: &str) -> String {
    library("misbehave");
    format!("[[models]]\nname = \"{name}\"\nplugin = \"misbehave\"\n{more}\n")
}

fn start(more: &str) -> Server {
    Scenario::new(&model("m", more)).start()
}

fn embed(server: &Server, body: &Json) -> Vec<Json> {
    let reply = server.post("/v1/embeddings", body).expect(200).json();
    let data = list(&reply["data"]).iter();
    data.map(|element| element["embedding"].clone()).collect()
}

/// The status and message of an error, and the member that it names.
fn openai_error(server: &Server, body: &Json) -> (u16, String, Json) {
    let reply = server.post("/v1/embeddings", body);
    let error = reply.json()["error"].clone();
    let message = error["message"].as_str().expect("a message").to_owned();
    (reply.status, message, error["param"].clone())
}

#[test]
fn a_name_with_a_slash_works_in_every_path_and_body() {
    let name = "BAAI/bge-small-en";
    let config = format!(
        "[server]\nadmin_key = \"the-key-of-the-admin\"\n\n{}[[models]]\nname = \"words\"\nplugin = \"template\"\n",
        model(name, "default_task = \"embed\"")
    );
    let server = Scenario::new(&config).start();
    let vector = json!([5.0, 2.0, 0.5]);
    for (body_name, path_name) in [
        (name, name),
        (name, "BAAI%2Fbge-small-en"),
        (name, "BAAI%2fbge-small-en"),
    ] {
        let body = json!({"model": body_name, "input": "to be"});
        assert_eq!(embed(&server, &body), std::slice::from_ref(&vector));
        for path in [
            format!("/v1/models/{path_name}/predict"),
            format!("/v1/models/{path_name}/tasks/embed/predict"),
        ] {
            let reply = server.post(&path, &json!({"input": "to be"})).expect(200).json();
            assert_eq!(reply["output"]["embedding"], vector, "{path}");
            assert_eq!(reply["model"], name, "{path}");
        }
        let reply = server.post(
            &format!("/v1/models/{path_name}:predict"),
            &json!({"instances": ["to be"]}),
        );
        assert_eq!(reply.expect(200).json()["predictions"], json!([vector]));
        let text =
            json!({"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["to be"]}]});
        for path in [
            format!("/v2/models/{path_name}/infer"),
            format!("/v2/models/{path_name}/versions/1/infer"),
        ] {
            let reply = server.post(&path, &text).expect(200).json();
            assert_eq!(reply["outputs"][0]["data"], vector, "{path}");
        }
        for path in [
            format!("/v1/models/{path_name}"),
            format!("/v1/models/{path_name}/metadata"),
            format!("/v1/models/{path_name}/versions/1"),
            format!("/v2/models/{path_name}"),
            format!("/v2/models/{path_name}/ready"),
            format!("/v2/models/{path_name}/config"),
            format!("/v2/models/{path_name}/stats"),
        ] {
            server.get(&path).expect(200);
        }
        let deployment = path_name.replace('/', "%2F");
        let path = format!("/openai/deployments/{deployment}/embeddings?api-version=2024-10-21");
        let reply = server.post(&path, &json!({"input": "to be"})).expect(200).json();
        assert_eq!(
            (&reply["data"][0]["embedding"], &reply["model"]),
            (&vector, &json!(name))
        );
        for action in ["unload", "load"] {
            let path = format!("/v2/repository/models/{path_name}/{action}");
            let call = server.request("POST", &path).json(&json!({}));
            call.header("authorization", "Bearer the-key-of-the-admin")
                .send()
                .expect(200);
        }
    }
    let labels = [
        ("model", name),
        ("task", "embed"),
        ("protocol", "openai"),
        ("status", "200"),
    ];
    assert_eq!(server.metrics().count("inference_requests_total", &labels), 6);
    let document = server.get("/openapi.json").expect(200).json();
    assert!(document["paths"]["/v1/models/BAAI%2Fbge-small-en/tasks/embed/predict"].is_object());
    // Other models have the same routes as before.
    server
        .post("/v1/models/words/tasks/echo/predict", &json!({"input": "a"}))
        .expect(200);
    server.get("/v1/models/words/nothing").expect(404);
}

#[test]
fn the_key_of_azure_is_accepted_wherever_a_key_is() {
    let key = "a-key-of-a-client";
    let config = format!("[server]\napi_keys = [\"{key}\"]\n\n{}", model("m", ""));
    let server = Scenario::new(&config)
        .argument("--log-level")
        .argument("debug")
        .start();
    let body = json!({"input": "to be"});
    let post = |name, value| {
        let call = server
            .request("POST", "/openai/deployments/m/embeddings")
            .json(&body);
        call.header(name, value).send()
    };
    let bearer = format!("Bearer {key}");
    post("api-key", key).expect(200);
    post("authorization", &bearer).expect(200);
    let rejected = post("api-key", "another-key-of-a-client").expect(401).json();
    assert_eq!(rejected["error"]["code"], "unauthorized");
    post("x-unrelated", key).expect(401);
    let both = server
        .request("POST", "/openai/deployments/m/embeddings")
        .json(&body);
    let both = both
        .header("api-key", key)
        .header("authorization", "Bearer another-key-of-a-client");
    both.send().expect(401);
    server
        .request("GET", "/v1/models")
        .header("api-key", key)
        .send()
        .expect(200);
    server
        .request("POST", "/")
        .json(&json!({"inputs": "a"}))
        .send()
        .expect(401);
    server.request("GET", "/").send().expect(200);
    assert!(!server.log().has(key));
}

#[test]
fn token_ids_of_openai_are_embedded_like_their_text() {
    let server = start("");
    // "Hello world" and "größer 🙂", as tiktoken splits them.
    let ids = json!({"model": "m", "input": [[9906, 1917], [911, 3029, 53762, 28584]]});
    let texts = json!({"model": "m", "input": ["Hello world", "größer 🙂"]});
    assert_eq!(embed(&server, &ids), embed(&server, &texts));
    assert_eq!(
        embed(&server, &ids),
        [json!([11.0, 2.0, 0.5]), json!([8.0, 2.0, 0.5])]
    );
    let one = json!({"model": "m", "input": [9906, 1917]});
    assert_eq!(embed(&server, &one), [json!([11.0, 2.0, 0.5])]);
    let more_than_the_limit_of_items = json!({"model": "m", "input": vec![9906; 5000]});
    assert_eq!(
        embed(&server, &more_than_the_limit_of_items),
        [json!([25_000.0, 1.0, 0.5])]
    );

    let (status, message, param) =
        openai_error(&server, &json!({"model": "m", "input": [[9906], [100_256]]}));
    assert_eq!((status, param), (400, json!("input")));
    for part in [
        "`input[1]`: token id 100256 ",
        "`token_ids",
        "check_embedding_ctx_length=False",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_setting_says_what_token_ids_are() {
    let server = start("[models.embeddings]\ntoken_ids = \"model\"");
    assert_eq!(
        embed(&server, &json!({"model": "m", "input": [[7, 8]]})),
        [json!([15.0, 2.0, 0.5])]
    );
    assert_eq!(
        embed(&server, &json!({"model": "m", "input": ["to be"]})),
        [json!([5.0, 2.0, 0.5])]
    );
    let server = start("[models.embeddings]\ntoken_ids = \"reject\"");
    let (status, message, param) = openai_error(&server, &json!({"model": "m", "input": [7, 8]}));
    assert_eq!((status, param), (400, json!("input")));
    assert!(
        message.contains("rejects token ids (`token_ids` in [models.embeddings])"),
        "{message}"
    );
}

#[test]
fn the_vectors_of_token_ids_are_those_of_their_text() {
    library("sentence_embeddings");
    let models = repository().join("plugins/sentence-embeddings/tests/models");
    let config = format!(
        "[[models]]\nname = \"BAAI/bge\"\nplugin = \"sentence_embeddings\"\ndefault_task = \"passage\"\n\
         [models.settings]\nfolder = \"{}\"\n",
        models.join("bge").display()
    );
    let server = Scenario::new(&config).start();
    let ids = embed(&server, &json!({"model": "BAAI/bge", "input": [[9906, 1917]]}));
    let text = embed(&server, &json!({"model": "BAAI/bge", "input": "Hello world"}));
    assert_eq!(ids, text);
    let reference = reference(REFERENCE);
    let expected = &reference["expected"]["bge"]["passage"];
    let vectors = embed(&server, &json!({"input": reference["texts"]}));
    for (index, vector) in vectors.iter().enumerate() {
        assert_close(vector, &expected[index], &format!("text {index}"));
    }
    // Cohere's types of inputs are the tasks with the prompts.
    for (input_type, task) in [("search_query", "query"), ("search_document", "passage")] {
        let request = json!({"model": "BAAI/bge", "texts": reference["texts"], "input_type": input_type});
        let reply = server.post("/v1/embed", &request).expect(200).json();
        for (index, vector) in list(&reply["embeddings"]).iter().enumerate() {
            let expected = &reference["expected"]["bge"][task][index];
            assert_close(vector, expected, &format!("{input_type} {index}"));
        }
    }
}

#[test]
fn embeddings_are_truncated_if_the_model_allows_it() {
    let server = start("[models.embeddings]\ndimensions = \"truncate\"");
    // Letters and words of "aa b" are 4 and 2; scaled to length 1.
    let expected = json!([4.0 / 20f64.sqrt(), 2.0 / 20f64.sqrt()]);
    let request = json!({"model": "m", "input": "aa b", "dimensions": 2});
    assert_close(&embed(&server, &request)[0], &expected, "float");
    let mut base64 = request.clone();
    base64["encoding_format"] = "base64".into();
    let text = embed(&server, &base64)[0].as_str().expect("base64").to_owned();
    let bytes = STANDARD.decode(text).expect("it is base64");
    let floats: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|chunk| f32::from_le_bytes(chunk.try_into().expect("4 bytes")))
        .collect();
    assert_close(&json!(floats), &expected, "base64");
    let cohere =
        json!({"model": "m", "texts": ["aa b"], "output_dimension": 2, "embedding_types": ["float"]});
    let reply = server.post("/v2/embed", &cohere).expect(200).json();
    assert_close(&reply["embeddings"]["float"][0], &expected, "Cohere");
    let tei = server
        .post("/embed", &json!({"inputs": "aa b", "dimensions": 2}))
        .expect(200)
        .json();
    assert_close(&tei[0], &expected, "text-embeddings-inference");
    // The size of the model changes nothing.
    let whole = json!({"model": "m", "input": "aa b", "dimensions": 3});
    assert_eq!(embed(&server, &whole), [json!([4.0, 2.0, 0.5])]);
    for wrong in [0, 4] {
        let (status, message, param) =
            openai_error(&server, &json!({"model": "m", "input": "a", "dimensions": wrong}));
        assert_eq!((status, param), (400, json!("dimensions")));
        assert!(
            message.ends_with("have 3 dimensions; expected 1 to 3"),
            "{message}"
        );
    }
    let fixed = start("");
    let (status, message, _) = openai_error(&fixed, &request);
    assert_eq!(status, 400);
    assert!(
        message.contains("`dimensions = \"truncate\"` in [models.embeddings]"),
        "{message}"
    );
}

#[test]
fn cohere_gets_every_type_of_embeddings() {
    let server = start("");
    let request = json!({"model": "m", "input_type": "classification", "texts": ["to be", "größer"]});
    let floats = json!([[5.0, 2.0, 0.5], [6.0, 1.0, 0.5]]);
    let v1 = server.post("/v1/embed", &request).expect(200).json();
    assert_eq!(v1["embeddings"], floats);
    assert_eq!(
        (&v1["response_type"], &v1["texts"]),
        (&json!("embeddings_floats"), &request["texts"])
    );
    assert_eq!(v1["meta"]["billed_units"]["input_tokens"], 3);
    let mut by_type = request.clone();
    by_type["embedding_types"] = json!(["float", "base64"]);
    let v2 = server.post("/v2/embed", &by_type).expect(200).json();
    assert_eq!(v2["embeddings"]["float"], floats);
    assert_eq!(v2["embeddings"]["base64"][0], "AACgQAAAAEAAAAA/");
    assert_eq!(
        (&v2["response_type"], &v2["meta"]["api_version"]["version"]),
        (&json!("embeddings_by_type"), &json!("2"))
    );
    let inputs = json!({"model": "m", "inputs": [{"content": [{"type": "text", "text": "to be"}]}]});
    let reply = server.post("/v2/embed", &inputs).expect(200).json();
    assert_eq!(reply["embeddings"]["float"], json!([[5.0, 2.0, 0.5]]));
    let error = |types: &str, status| {
        let mut request = request.clone();
        request["embedding_types"] = json!([types]);
        let reply = server.post("/v2/embed", &request).expect(status).json();
        reply["message"].as_str().expect("a message").to_owned()
    };
    assert!(error("binary", 422).contains("multiple of 8 dimensions"));
    assert!(error("int8", 422).contains("`int8` is not supported"));
    assert!(error("float16", 400).contains("invalid value `float16`"));
    let image = json!({"model": "m", "texts": ["a"], "input_type": "image"});
    let reply = server.post("/v2/embed", &image).expect(400).json();
    assert!(
        reply["message"]
            .as_str()
            .is_some_and(|message| message.contains("invalid value `image`"))
    );
}

#[test]
fn cohere_truncates_as_it_is_told() {
    let server = start("");
    let embed = |truncate: &str, status| {
        let request = json!({"model": "m", "texts": ["a bb ccc dddd eeeee"], "truncate": truncate});
        server.post("/v1/embed", &request).expect(status).json()
    };
    // Four words are kept.
    assert_eq!(embed("END", 200)["embeddings"], json!([[13.0, 4.0, 0.5]]));
    assert_eq!(embed("START", 200)["embeddings"], json!([[17.0, 4.0, 0.5]]));
    let message = embed("NONE", 422)["message"].clone();
    assert!(
        message
            .as_str()
            .is_some_and(|message| message.contains("5 words, expected at most 4")),
        "{message}"
    );
}

#[test]
fn settings_select_the_prompt_of_an_input_type() {
    let server = start("[models.embeddings]\nsearch_query = \"find\"\nclustering = \"embed\"");
    let embed = |input_type: &str| {
        let request = json!({"model": "m", "texts": ["to be"], "input_type": input_type});
        server.post("/v1/embed", &request).expect(200).json()["embeddings"][0].clone()
    };
    // The prompt `find` is passed to the task, which counts it.
    assert_eq!(embed("search_query"), json!([10.0, 3.0, 0.5]));
    for input_type in ["search_document", "classification", "clustering"] {
        assert_eq!(embed(input_type), json!([5.0, 2.0, 0.5]), "{input_type}");
    }
}

#[test]
fn embeddings_of_onnx_files_and_python_work_in_every_protocol() {
    library("onnx");
    let tests = repository().join("plugins/onnx/tests/models");
    let tokenizer = repository().join("plugins/sentence-embeddings/tests/models/bge/tokenizer.json");
    let onnx = format!(
        "[[models]]\nname = \"o\"\nplugin = \"onnx\"\n[models.embeddings]\ndimensions = \"truncate\"\n\
         [models.settings]\nmodel = \"{}\"\n[models.settings.tasks.t]\ntokenizer = {{ file = \"{}\" }}\n\
         embedding = {{ pooling = \"mean\", normalize = false }}\n",
        tests.join("token_vectors.onnx").display(),
        tokenizer.display()
    );
    let server = Scenario::new(&onnx).start();
    // The mean of the tokens of "the lake", and 1.
    works_in_every_protocol(&server, "o", "the lake", [251.0 / 7.0, 1.0]);
    let Some(server) = crate::python::serve(
        "vectors.py",
        "Vectors",
        "[models.embeddings]\ndimensions = \"truncate\"",
    ) else {
        return;
    };
    works_in_every_protocol(&server, "m", "the lake", [8.0, 1.0]);
}

fn works_in_every_protocol(server: &Server, model: &str, text: &str, vector: [f64; 2]) {
    let length = (vector[0] * vector[0] + vector[1] * vector[1]).sqrt();
    let normalized = json!(vector.map(|element| element / length));
    let vector = json!(vector);
    let openai = embed(server, &json!({"model": model, "input": [text]}));
    assert_close(&openai[0], &vector, "OpenAI");
    let short = embed(server, &json!({"model": model, "input": [text], "dimensions": 1}));
    assert_close(&short[0], &json!([1.0]), "truncated");
    let cohere = json!({"model": model, "texts": [text], "input_type": "search_query"});
    let cohere = server.post("/v2/embed", &cohere).expect(200).json();
    assert_close(&cohere["embeddings"]["float"][0], &vector, "Cohere");
    for path in [
        "/embed".to_owned(),
        format!("/{model}/embed"),
        "/".to_owned(),
        format!("/{model}"),
    ] {
        let tei = server
            .post(&path, &json!({"inputs": text, "truncate": true}))
            .expect(200)
            .json();
        assert_close(&tei[0], &normalized, &path);
        let raw = server
            .post(&path, &json!({"inputs": [text], "normalize": false}))
            .expect(200)
            .json();
        assert_close(&raw[0], &vector, &path);
    }
    let sentences = json!({"inputs": {"source_sentence": text, "sentences": [text]}});
    let similarity = server.post("/similarity", &sentences).expect(200).json();
    assert_close(&similarity, &json!([1.0]), "similarity");
    // These plugins have no such parameters.
    for (option, value) in [
        ("truncation_direction", json!("Left")),
        ("truncate", json!(false)),
    ] {
        let mut request = json!({"inputs": text});
        request[option] = value;
        let error = server.post("/embed", &request).expect(422).json();
        assert!(
            error["error"]
                .as_str()
                .is_some_and(|error| error.contains(option)),
            "{error}"
        );
    }
    let unknown = server
        .post("/embed", &json!({"inputs": text, "prompt_name": "query"}))
        .expect(422)
        .json();
    assert!(
        unknown["error"]
            .as_str()
            .is_some_and(|error| error.contains("no prompt `query`")),
        "{unknown}"
    );
}

#[test]
fn the_model_is_optional_if_only_one_embeds() {
    let config = format!("{}{}", model("one", ""), model("other", ""));
    let server = Scenario::new(&config).start();
    let (status, message, param) = openai_error(&server, &json!({"input": "a"}));
    assert_eq!((status, param), (400, json!("model")));
    assert_eq!(
        message,
        "missing member `model`: expected one of one.embed, other.embed"
    );
    let server = Scenario::new(&model("one", "")).start();
    let reply = server
        .post("/v1/embeddings", &json!({"input": "a"}))
        .expect(200)
        .json();
    assert_eq!(
        (&reply["model"], &reply["data"][0]["embedding"]),
        (&json!("one"), &json!([1.0, 1.0, 0.5]))
    );
}

#[test]
fn the_document_has_every_route_of_the_tasks() {
    let paths = |server: &Server| server.get("/openapi.json").expect(200).json()["paths"].clone();
    let document = paths(&start(""));
    for path in [
        "/v1/embeddings",
        "/v1/embed",
        "/v2/embed",
        "/embed",
        "/embed_all",
        "/embed_sparse",
        "/similarity",
        "/predict",
        "/tokenize",
        "/decode",
        "/",
    ] {
        assert!(document[path]["post"].is_object(), "{path}");
    }
    assert!(document["/info"]["get"].is_object());
    // With several models, the path begins with the name of one.
    let config = format!("{}{}", model("one", ""), model("other", ""));
    let document = paths(&Scenario::new(&config).start());
    for path in ["/one/embed", "/other/tokenize", "/one"] {
        assert!(document[path]["post"].is_object(), "{path}");
    }
    assert!(document["/embed"].is_null());
}
