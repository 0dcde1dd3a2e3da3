//! The rows of CASES.md that are exchanges of bytes: data in `tests/cases`, one runner, one test
//! for each row. Every exchange is judged by all of `harness/oracles.rs`.
//!
//! A row that a table cannot say (floods, sweeps, mutants) stands in `sweeps.rs`; whether the
//! oracles would notice anything, in `teeth.rs`;
//! whom the gateway believes upstream, in `trust.rs`.

mod data;
mod run;
mod sweeps;
mod teeth;
mod trust;

/// A module of tests, one for each row of a file, and one that no row of the file is forgotten.
macro_rules! rows {
    ($group:ident, $file:literal, $($test:ident $id:literal,)*) => {
        mod $group {
            use std::collections::BTreeSet;

            const TEXT: &str = include_str!(concat!("../../cases/", $file));

            $(#[test]
            fn $test() {
                super::run::row(&super::data::read(TEXT), $id);
            })*

            #[test]
            fn every_row_of_the_file_has_its_test() {
                let cases = super::data::read(TEXT);
                let rows: BTreeSet<&str> = cases.iter().map(|case| case.id.as_str()).collect();
                assert_eq!(rows, BTreeSet::from([$($id),*]));
            }
        }
    };
}

rows! { a, "a.toml",
    a01_content_length_before_chunked_is_refused "A01",
    a02_chunked_before_content_length_is_refused "A02",
    a03_two_lengths_that_differ_are_refused "A03",
    a04_two_equal_lengths_become_one_or_are_refused "A04",
    a05_a_list_of_lengths_is_refused "A05",
    a06_a_length_with_a_plus_is_refused "A06",
    a07_a_negative_length_is_refused "A07",
    a08_a_length_in_another_notation_is_refused "A08",
    a09_leading_zeros_of_a_length_do_not_go_upstream "A09",
    a10_an_empty_length_is_refused "A10",
    a11_a_length_beyond_all_bounds_is_refused "A11",
    a12_a_body_that_never_comes_is_given_up "A12",
    a13_a_body_that_ends_early_is_broken_off_upstream "A13",
    a14_a_look_alike_of_content_length_frames_nothing "A14",
    a15_white_space_before_the_colon_of_a_length_is_refused "A15",
    a16_bytes_that_some_take_for_space_before_the_colon_are_refused "A16",
    a17_white_space_before_the_colon_of_a_coding_is_refused "A17",
    a18_an_unknown_coding_beside_a_length_is_refused "A18",
    a19_white_space_around_chunked_changes_nothing "A19",
    a20_empty_list_members_beside_chunked_are_refused "A20",
    a21_chunked_that_is_not_last_is_refused "A21",
    a22_other_codings_before_chunked_are_not_implemented "A22",
    a23_chunked_more_than_once_is_refused "A23",
    a24_identity_beside_a_length_is_refused "A24",
    a25_an_empty_coding_is_refused "A25",
    a26_control_and_high_bytes_around_chunked_are_refused "A26",
    a27_what_only_looks_like_chunked_is_refused "A27",
    a28_look_alikes_of_the_field_name_frame_nothing_and_go_nowhere "A28",
    a29_folded_lines_are_refused "A29",
    a30_bare_cr_and_bare_lf_in_the_head_are_refused "A30",
    a32_chunked_on_http_1_0_is_refused "A32",
    a33_a_request_body_is_never_delimited_by_the_end "A33",
    a34_chunk_sizes_are_hex_digits_and_nothing_else "A34",
    a35_chunk_sizes_beyond_all_bounds_are_refused "A35",
    a36_a_chunk_ends_with_crlf "A36",
    a37_term_ext_the_size_line_ends_with_crlf_only "A37",
    a38_ext_term_the_size_line_ends_with_crlf_only "A38",
    a39_term_spill_and_spill_term_are_refused "A39",
    a40_chunk_terminators_of_other_lengths_are_refused "A40",
    a41_bare_lf_in_the_chunked_coding_is_refused "A41",
    a42_two_crs_after_a_chunk_size_are_refused "A42",
    a43_chunk_extensions_are_never_forwarded "A43",
    a44_chunk_extensions_have_a_budget "A44",
    a45_one_byte_chunks_are_one_body "A45",
    a46_a_trailer_does_not_end_the_connection "A46",
    a47_trailers_that_frame_route_or_identify_are_dropped "A47",
    a48_the_trailer_section_is_bounded_in_size_and_time "A48",
    a49_nothing_but_crlf_follows_the_last_chunk "A49",
    a50_a_head_ends_with_crlf_only "A50",
    a51_what_came_before_invalid_bytes_is_answered_first "A51",
    a52_a_hundred_pipelined_requests_get_a_hundred_answers "A52",
    a53_the_body_of_a_get_is_a_body "A53",
    a54_the_body_of_any_method_is_a_body "A54",
    a55_a_body_that_a_local_answer_leaves_unread_is_never_a_request "A55",
    a56_a_body_that_comes_too_late_is_never_a_request "A56",
    a57_an_early_answer_leaves_no_half_request_behind "A57",
    a58_every_request_of_a_connection_is_judged "A58",
    a59_an_http_2_preface_on_an_http_1_listener_is_refused "A59",
    a60_tls_bytes_on_a_cleartext_listener_are_refused "A60",
    a61_framing_fields_that_connection_names_are_framed_anew "A61",
}

rows! { b, "b.toml",
    b01_http_1_1_without_host_is_refused "B01",
    b02_two_hosts_are_refused "B02",
    b03_hosts_that_are_no_authority_are_refused "B03",
    b04_a_nul_in_host_is_refused "B04",
    b05_the_authority_of_the_target_wins "B05",
    b06_absolute_targets_have_a_path_and_the_scheme_of_the_listener "B06",
    b07_request_lines_have_one_form_for_each_method "B07",
    b08_bytes_that_no_target_may_hold_are_refused "B08",
    b09_fragments_are_refused "B09",
    b10_one_canonical_path_for_router_and_upstream "B10",
    b11_other_versions_are_refused "B11",
    b12_http_0_9_is_refused "B12",
    b13_empty_lines_first_are_few_and_buy_no_time "B13",
    b14_leading_white_space_is_refused "B14",
    b15_methods_that_are_no_words_are_refused "B15",
    b16_eight_thousand_bytes_of_target_pass "B16",
    b17_a_hundred_kib_of_target_are_414 "B17",
    b18_header_limits_hold_exactly "B18",
    b19_names_that_are_no_tokens_are_refused "B19",
    b20_control_bytes_in_values_are_refused "B20",
    b21_a_field_that_stands_twice_passes_twice "B21",
    b22_encoded_line_ends_never_become_fields "B22",
    b23_long_paths_cost_linear_time "B23",
}

rows! { c, "c.toml",
    c01_connection_cannot_remove_what_is_end_to_end "C01",
    c02_fields_that_connection_names_stay_here "C02",
    c03_hop_by_hop_fields_stay_here "C03",
    c04_hop_by_hop_fields_of_answers_stay_here "C04",
    c05_an_untrusted_peer_says_nothing_about_the_client "C05",
    c06_any_x_forwarded_for_of_an_untrusted_peer_is_replaced "C06",
    c07_look_alikes_of_forwarding_fields_are_dropped "C07",
    c08_a_loop_ends "C08",
    c09_a_broken_forwarded_is_not_passed_on "C09",
    c11_a_spoofed_client_certificate_is_removed "C11",
}

rows! { d, "d.toml",
    d01_expect_continue_gives_one_final_answer "D01",
    d02_an_early_answer_leaves_no_half_request "D02",
    d03_a_body_that_does_not_wait_for_100_is_a_body "D03",
    d04_obfuscated_expectations_are_refused "D04",
    d05_interim_answers_do_not_spoil_the_final_one "D05",
    d06_endless_interim_answers_end "D06",
    d07_an_unasked_101_is_a_bad_gateway "D07",
    d08_bytes_after_a_declined_upgrade_are_requests "D08",
    d09_an_upgrade_with_a_body_is_one_or_the_other "D09",
    d10_h2c_upgrades_are_not_forwarded "D10",
    d11_without_a_whole_handshake_there_is_no_tunnel "D11",
    d12_connect_is_refused "D12",
    d14_trace_is_refused "D14",
}

rows! { e, "e.toml",
    e01_a_body_cut_short_is_cut_short_for_the_client "E01",
    e02_a_broken_chunked_body_is_never_made_whole "E02",
    e03_a_reset_is_502_before_the_headers_and_an_abort_after_them "E03",
    e04_surplus_bytes_go_to_nobody "E04",
    e05_an_unasked_answer_on_an_idle_connection_goes_to_nobody "E05",
    e06_two_framings_of_an_answer_become_one "E06",
    e07_lengths_that_contradict_are_502 "E07",
    e08_unknown_codings_of_an_answer_are_502 "E08",
    e09_chunked_on_http_1_0_is_not_reused "E09",
    e10_answers_that_have_no_body_bring_none "E10",
    e11_204_has_no_framing "E11",
    e12_malformed_status_lines_are_502 "E12",
    e13_control_bytes_in_an_answer_are_502 "E13",
    e14_a_folded_line_in_an_answer_is_unfolded_or_502 "E14",
    e15_heads_beyond_the_limit_are_502 "E15",
    e16_silence_is_504_or_an_abort "E16",
    e19_an_early_answer_is_passed_on "E19",
    e27_all_fields_of_an_answer_arrive "E27",
    e28_early_hints_are_bounded_as_heads_are "E28",
}
