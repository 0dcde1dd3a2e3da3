//! The rows of CASES.md that are exchanges of bytes: data in `tests/cases`, one runner, one test
//! for each row. Every exchange is judged by all of `harness/oracles.rs`.
//!
//! A row that a table cannot say (floods, sweeps, mutants) stands in `sweeps.rs`.

mod data;
mod run;
mod sweeps;

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
