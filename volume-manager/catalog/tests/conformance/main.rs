//! What a store of the catalog must do, whichever it is. Each test runs against every store.

#![allow(missing_docs, clippy::unwrap_used)]

mod concurrency;
mod index;
mod inventory;
mod leadership;
mod migration;
mod mysql;
mod proxy;
mod recovery;
mod subject;
mod table;

/// Each test for each store.
macro_rules! every_store {
    ($($file:ident: $($test:ident)*;)*) => {
        every_store! { @ sqlite: $($($file $test)*)* }
        every_store! { @ mysql_one_shard: $($($file $test)*)* }
        every_store! { @ mysql_four_shards: $($($file $test)*)* }
    };
    (@ $store:ident: $($file:ident $test:ident)*) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    crate::$file::$test(crate::subject::Subject::$store().await).await;
                }
            )*
        }
    };
}

every_store! {
    index:
        a_block_is_found_where_it_was_inserted
        a_fenced_volume_leaves_the_others_of_its_transaction_alone
        a_row_beyond_its_batch_is_refused_with_everything_else
        a_key_is_kept_and_never_overwritten
        a_touch_says_what_is_there_and_marks_it_once_a_day
        many_blocks_are_found_in_the_order_asked_for
        two_handles_do_what_the_model_does;
    concurrency:
        no_insert_lands_after_a_close_however_they_interleave
        many_writers_of_the_same_blocks_leave_one_row_each
        a_question_that_is_given_up_spoils_no_other
        what_is_given_up_is_carried_out_all_the_same;
    inventory:
        a_disk_registers_with_the_nonce_it_was_given_or_not_at_all
        a_heartbeat_updates_a_disk_but_takes_it_from_nobody
        what_no_volume_needs_is_forgotten_and_nothing_else
        a_setting_stands_until_it_is_replaced_or_removed;
    leadership:
        in_every_state_two_leaders_can_do_what_the_model_says_and_no_more
        a_lease_ends_by_itself_and_only_then_another_leads
        of_many_candidates_one_leads;
    recovery:
        volumes_are_taken_in_from_the_disks_while_the_table_is_marked_as_lost
        once_it_is_marked_a_disk_may_register_with_any_nonce_once
        a_term_is_raised_above_what_the_nodes_know
        a_leader_that_was_replaced_recovers_nothing;
    table:
        a_volume_lives_from_creating_to_sealed_and_each_step_can_be_repeated
        what_contradicts_an_earlier_step_is_refused
        replicas_of_a_sealed_volume_change_by_compare_and_set
        a_lease_is_renewed_for_its_holder_only_and_runs_out_otherwise
        volumes_are_read_page_by_page_all_of_them_or_those_of_a_disk
        a_leader_that_was_replaced_changes_nothing
        frontends_read_locations_from_a_handle_of_their_own
        a_generation_rises_when_it_is_told_to
        length_and_digest_are_committed_once_whatever_is_called;
}
