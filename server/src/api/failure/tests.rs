use super::*;

#[test]
fn an_unknown_model_is_reported_with_a_suggestion_and_the_known_models() {
    let failure = Failure::unknown_model("digit", ["digits", "texts"].into_iter());
    assert_eq!(failure.code.status(), 404);
    assert_eq!(
        failure.message,
        "unknown model `digit`, did you mean `digits`?; known models: digits, texts"
    );
    let failure = Failure::unknown_task("digits", "x", std::iter::empty());
    assert_eq!(failure.message, "unknown task `x`; tasks of model `digits`: none");
}

#[test]
fn retry_after_is_whole_seconds_and_at_least_one() {
    let seconds = |millis| {
        Failure::from(Rejection::QueueTooHeavy {
            task: "text".to_owned(),
            queued: 9,
            limit: 8,
            retry_after: Duration::from_millis(millis),
        })
        .retry_after_seconds()
    };
    assert_eq!(seconds(0), Some(1));
    assert_eq!(seconds(1), Some(1));
    assert_eq!(seconds(2001), Some(3));
}

#[test]
fn an_overload_is_reported_with_the_deadline_and_the_expected_wait() {
    let failure = Failure::from(Rejection::Overloaded {
        task: "text".to_owned(),
        timeout: Duration::from_secs(2),
        retry_after: Duration::from_millis(300_500),
    });
    assert_eq!((failure.code.name(), failure.code.status()), ("overloaded", 429));
    assert_eq!(failure.code.grpc_status(), 8);
    assert_eq!(failure.retry_after_seconds(), Some(301));
    assert_eq!(
        failure.message,
        "task `text` is overloaded: the request cannot be answered within its deadline of 2000 ms; \
         the expected wait is 300500 ms"
    );
}

#[test]
fn a_full_queue_is_not_reported_as_unavailable() {
    assert_eq!(Code::QueueFull.status(), 429);
    assert_eq!(Code::QueueFull.grpc_status(), 8);
    assert_eq!(Code::Unavailable.grpc_status(), 14);
    for code in Code::ALL {
        assert!((1..=16).contains(&code.grpc_status()), "{code:?}");
    }
}

#[test]
fn messages_for_clients_are_truncated() {
    let message = |text: String| Failure::new(Code::Malformed, text).client_message().into_owned();
    let longest = "x".repeat(MAX_MESSAGE);
    assert_eq!(message(longest.clone()), longest);
    for text in [longest + "x", "é".repeat(MAX_MESSAGE)] {
        let message = message(text);
        assert!(message.ends_with('…'));
        assert!(
            (MAX_MESSAGE - 3..=MAX_MESSAGE).contains(&message.len()),
            "{}",
            message.len()
        );
    }
}
