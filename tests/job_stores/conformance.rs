//! What every store does, as functions of the function that opens one.

pub(super) mod claims;
pub(super) mod deliveries;
pub(super) mod endings;
pub(super) mod limits;
pub(super) mod reading;
pub(super) mod submissions;
pub(super) mod whole;

use futures_util::future::LocalBoxFuture;

use super::fixture::Open;

/// Passes the names of the functions of the suite to another macro, by module.
macro_rules! with_cases {
    ($macro:ident! $($arguments:tt)*) => {
        $macro! {
            $($arguments)*;
            submissions:
                a_stored_job_has_what_was_submitted
                a_repeated_submission_returns_the_first_job
                an_idempotency_key_with_another_request_is_a_conflict
                an_idempotency_key_belongs_to_its_owner_and_ends_with_its_job
                concurrent_submissions_with_one_key_create_one_job;
            claims:
                jobs_are_claimed_by_priority_and_then_in_the_order_of_submission
                claims_fill_the_room_of_each_model
                a_job_with_more_items_than_there_is_room_is_claimed
                claimed_requests_are_bounded_in_bytes
                a_job_is_not_claimed_before_its_time
                concurrent_claims_never_return_a_job_twice
                a_lease_that_is_renewed_is_kept_and_others_are_lost
                a_lost_claim_costs_an_attempt_only_if_the_attempt_had_begun
                a_released_claim_costs_nothing;
            endings:
                a_job_succeeds_with_exactly_its_reply
                a_rejected_request_fails_at_once_with_its_reply
                an_error_can_have_any_character
                a_late_result_is_discarded
                a_result_is_stored_once
                a_cancelled_job_stays_cancelled
                a_job_that_uses_all_attempts_is_a_dead_letter_and_can_be_retried
                a_job_expires_when_it_has_waited_too_long
                finished_jobs_are_removed_after_their_retention
                a_job_that_has_not_ended_cannot_be_removed;
            reading:
                a_job_is_visible_to_its_owner_only
                lists_are_filtered_and_divided_into_pages
                statistics_count_jobs_by_model_and_state
                progress_is_kept_until_the_next_attempt
                changes_are_announced;
            deliveries:
                the_outcome_of_a_job_is_delivered_until_it_is_accepted
                a_claimed_delivery_is_due_again_after_its_lease
                jobs_with_pending_deliveries_are_kept
                each_outcome_of_a_job_has_its_own_message;
            limits:
                more_jobs_than_the_limit_are_rejected
                more_bytes_than_the_limit_are_rejected;
            whole:
                everything_is_found_again_after_closing
                a_closed_store_says_so
                every_job_has_exactly_one_result_although_calls_fail_and_servers_vanish;
        }
    };
}

/// Declares a test for each function of the suite, for stores that a function opens.
macro_rules! declare_tests {
    ($open:path; $($module:ident: $($case:ident)*;)*) => {
        $(mod $module {
            $(#[tokio::test]
            async fn $case() {
                crate::job_stores::conformance::$module::$case(std::sync::Arc::new($open)).await;
            })*
        })*
    };
}

macro_rules! list_cases {
    ($open:ident; $($module:ident: $($case:ident)*;)*) => {
        vec![$($((stringify!($case), Box::pin($module::$case($open.clone())) as LocalBoxFuture<'static, ()>)),*),*]
    };
}

/// The whole suite, by name.
pub(super) fn cases(open: &Open) -> Vec<(&'static str, LocalBoxFuture<'static, ()>)> {
    with_cases!(list_cases! open)
}

pub(super) use {declare_tests, with_cases};
