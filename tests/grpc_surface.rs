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
