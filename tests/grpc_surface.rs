//! gRPC behavior before and after a message is read.

use hyper::body::Bytes;

use crate::harness::Scenario;
use crate::harness::grpc::{self, Grpc};

#[tokio::test]
async fn a_client_without_a_key_is_rejected_before_it_has_sent_its_message() {
    let server = Scenario::new(
        "[server]\ngrpc_port = 0\napi_keys = [\"a-key-of-a-client\"]\n\n\
         [[models]]\nname = \"t\"\nplugin = \"template\"\n",
    )
    .start();
    let mut client = Grpc::connect(server.grpc_address()).await;
    // An unknown method also requires a key.
    for method in ["ModelInfer", "ModelStreamInfer", "Nothing"] {
        let (call, _body) = client.begin(method, b"");
        let answer = call.await.expect("an answer");
        let (status, message) = grpc::status(&answer);
        assert_eq!(status, "16", "{method}: {message}");
        assert!(answer.headers().contains_key("x-request-id"));
    }
    let labels = |method| [("method", method), ("status", "UNAUTHENTICATED")];
    let metrics = server.metrics();
    for method in ["ModelInfer", "ModelStreamInfer", "other"] {
        assert_eq!(
            metrics.count("grpc_requests_total", &labels(method)),
            1,
            "{method}"
        );
    }
    assert!(client.is_live().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_is_counted_as_cancelled() {
    let server = Scenario::misbehave("", "")
        .argument("--grpc-port")
        .argument("0")
        .start();
    let mut client = Grpc::connect(server.grpc_address()).await;
    let call = client.begin("ModelInfer", b"\0\0");
    let _other = client.begin("ModelInfer", b"\0\0");
    // Requests are served in order.
    assert!(client.is_live().await);
    let labels = [("method", "ModelInfer"), ("status", "CANCELLED")];
    drop(call);
    server.wait_for_metric("grpc_requests_total", &labels, 1);
    client.cut().await;
    server.wait_for_metric("grpc_requests_total", &labels, 2);
    server.wait_for_log("path=/inference.GRPCInferenceService/ModelInfer status=499");
}

#[tokio::test]
async fn metadata_that_must_not_be_repeated_is_rejected_before_the_message() {
    let server =
        Scenario::new("[server]\ngrpc_port = 0\n\n[[models]]\nname = \"t\"\nplugin = \"template\"\n").start();
    let mut client = Grpc::connect(server.grpc_address()).await;
    for name in ["x-priority", "x-request-timeout", "authorization"] {
        for method in ["ModelInfer", "ModelStreamInfer"] {
            let path = format!("/inference.GRPCInferenceService/{method}");
            let (call, _body) = client.begin_request(&path, Bytes::new(), |request| {
                request.header(name, "1").header(name, "2")
            });
            let answer = call.await.expect("an answer");
            let expected = ("3", format!("header {name}: expected one value, got 2"));
            assert_eq!(grpc::status(&answer), expected, "{method}");
        }
    }
    assert!(client.is_live().await);
}

#[tokio::test]
async fn an_unknown_method_is_rejected_with_a_message() {
    let server =
        Scenario::new("[server]\ngrpc_port = 0\n\n[[models]]\nname = \"t\"\nplugin = \"template\"\n").start();
    let mut client = Grpc::connect(server.grpc_address()).await;
    for path in [
        "/inference.GRPCInferenceService/CudaSharedMemoryStatus",
        "/grpc.health.v1.Health/Nothing",
        "/some.Service/Method",
    ] {
        let (call, _body) = client.begin_at(path, Bytes::new());
        let answer = call.await.expect("an answer");
        let (status, message) = grpc::status(&answer);
        assert_eq!(status, "12", "{path}: {message}");
        assert!(
            message.contains("unknown method") && message.contains(path),
            "{message}"
        );
    }
}

#[tokio::test]
async fn headers_of_jobs_are_rejected_and_the_preference_for_one_is_ignored() {
    let model = "[[models]]\nname = \"t\"\nplugin = \"template\"\ndefault_task = \"echo\"\n";
    let server = Scenario::new(&format!("[server]\ngrpc_port = 0\n\n{model}")).start();
    let mut client = Grpc::connect(server.grpc_address()).await;
    // One text "a" for the model "t".
    let message = b"\0\0\0\0\x1a\x0a\x01t\x2a\x15\x0a\x04TEXT\x12\x05BYTES\x1a\x01\x01\x2a\x03\x42\x01a";
    let path = "/inference.GRPCInferenceService/ModelInfer";
    let mut infer = |name: &'static str, value: &'static str| {
        let (call, mut body) =
            client.begin_request(path, &message[..], |request| request.header(name, value));
        body.send_data(Bytes::new(), true).expect("the call is open");
        call
    };
    for (name, value) in [
        ("x-job-ttl", "1m"),
        ("x-job-not-before", "1m"),
        ("x-job-label", "a"),
        ("x-webhook-url", "https://example.com/"),
    ] {
        let answer = infer(name, value).await.expect("an answer");
        let (status, text) = grpc::status(&answer);
        assert_eq!(status, "3", "{text}");
        assert!(text.contains(name) && text.contains("over HTTP"), "{text}");
    }
    let mut reply = infer("prefer", "respond-async")
        .await
        .expect("an answer")
        .into_body();
    let reply = reply.data().await.and_then(Result::ok).expect("a reply");
    assert!(reply.ends_with(b"a"), "{reply:?}");
    assert_eq!(
        server.get("/v1/jobs").expect(200).json()["data"],
        serde_json::json!([])
    );
}
