//! Limits on the rates of requests and items.

use hyper::body::Bytes;
use serde_json::json;

use super::{ADMIN_KEY, EMBED, call, get, infer, post, secret, start};
use crate::harness::grpc::Grpc;

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_requests_applies_to_all_protocols_together() {
    let server = start("[[key]]\nname = \"slow\"\nrequests_per_second = 0.001\nrequest_burst = 6\n");
    let native = json!({"inputs": ["to be"]});
    let instances = json!({"instances": ["to be"]});
    let mut left = 6;
    for (path, body) in [
        ("/v1/models/words/tasks/echo/predict", &native),
        ("/words", &native),
        ("/v1/models/words.echo:predict", &instances),
        ("/v2/models/words.echo/infer", &infer()),
        ("/v1/embeddings", &json!({"model": "m.embed", "input": "to be"})),
    ] {
        left -= 1;
        let reply = post(&server, "slow", path, body).expect(200);
        assert_eq!(
            reply.header("ratelimit-policy"),
            Some("\"requests\";q=6;w=6000"),
            "{path}"
        );
        let expected = format!("\"requests\";r={left};t={}000", 6 - left);
        assert_eq!(reply.header("ratelimit"), Some(expected.as_str()), "{path}");
    }
    // A request that does not run a task, or that the key may not send, does not count.
    let list = get(&server, "slow", "/v1/models").expect(200);
    assert_eq!(list.header("ratelimit"), None);
    post(&server, "slow", "/v1/models/nothing/predict", &native).expect(404);

    let mut client = Grpc::connect(server.grpc_address()).await;
    let (answer, mut body) = client.begin_with_key("ModelInfer", EMBED, &secret("slow"));
    body.send_data(Bytes::new(), true).expect("the call is open");
    let answer = answer.await.expect("an answer");
    let field = answer
        .headers()
        .get("ratelimit")
        .and_then(|value| value.to_str().ok());
    assert_eq!(field, Some("\"requests\";r=0;t=6000"));

    for (path, body) in [
        ("/words", &native),
        ("/v1/models/words/tasks/echo/predict", &native),
        ("/v1/models/words.echo:predict", &instances),
        ("/v2/models/words.echo/infer", &infer()),
        ("/v1/embeddings", &json!({"model": "m.embed", "input": "to be"})),
    ] {
        let reply = post(&server, "slow", path, body).expect(429);
        assert!(
            reply
                .text()
                .contains("API key `slow` exceeds its limit of 0.001 requests per second"),
            "{path}: {}",
            reply.text()
        );
        let retry: u64 = reply
            .header("retry-after")
            .and_then(|value| value.parse().ok())
            .expect("the reply has a time to wait");
        assert!((1..=1000).contains(&retry), "{retry}");
        let field = reply.header("ratelimit").expect("the reply has the limit");
        let window = field
            .strip_prefix("\"requests\";r=0;t=")
            .expect("nothing is left");
        let window: u64 = window.parse().expect("the window is a number");
        assert!(window <= retry, "{field} {retry}");
    }
    let limited = post(&server, "slow", "/words", &native).expect(429);
    assert_eq!(limited.error().0, "rate_limited");
    let (status, message) = call(&mut client, "ModelInfer", EMBED, "slow").await;
    assert_eq!(status, "8", "{}", String::from_utf8_lossy(&message));
    let (status, reply) = call(&mut client, "ModelStreamInfer", EMBED, "slow").await;
    let reply = String::from_utf8_lossy(&reply).into_owned();
    assert!(status == "0" && reply.contains("exceeds its limit"), "{reply}");
    // Other keys are not affected.
    let call = server.request("POST", "/words").json(&native);
    call.header("authorization", &format!("Bearer {ADMIN_KEY}"))
        .send()
        .expect(200);
}

#[test]
fn a_limit_on_items_counts_each_item_and_rejects_more_than_a_burst() {
    let server = start(
        "[[key]]\nname = \"few\"\nrequests_per_second = 100\nitems_per_second = 0.001\nitem_burst = 4\n",
    );
    let predict = |items: usize| {
        let body = json!({"inputs": vec!["to be"; items]});
        post(&server, "few", "/v1/models/words/tasks/echo/predict", &body)
    };
    let never = predict(5).expect(400);
    assert_eq!(
        never.error(),
        (
            "malformed_request".to_owned(),
            "the request has 5 items, more than API key `few` allows at once (4): split it".to_owned()
        )
    );
    let reply = predict(3).expect(200);
    assert_eq!(
        reply.header("ratelimit-policy"),
        Some("\"requests\";q=100;w=1, \"items\";q=4;qu=\"items\";w=4000")
    );
    let field = reply.header("ratelimit").expect("the reply has the limits");
    assert!(field.ends_with(", \"items\";r=1;t=3000"), "{field}");
    let limited = predict(2).expect(429);
    assert_eq!(limited.error().0, "rate_limited");
    let field = limited.header("ratelimit").expect("the reply has the limits");
    assert!(field.contains("\"items\";r=1;t="), "{field}");
    predict(1).expect(200);
    predict(1).expect(429);
}
