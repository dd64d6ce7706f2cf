//! The name of the model in front of the path, and the paths that consist of a name alone.

use serde_json::json;

use super::error;
use crate::harness::Scenario;
use crate::harness::plugins::{library, repository};
use crate::harness::vectors::list;

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
