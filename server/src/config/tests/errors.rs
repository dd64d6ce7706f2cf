//! The messages about what is wrong in a file that is TOML.

use insta::assert_snapshot;

use super::file;

#[test]
fn an_unknown_key_names_the_nearest() {
    assert_snapshot!(file("[[models]]\nname = \"digits\"\nplugin = \"onnx\"\n[models.batching]\nmax_bacth_size = 8\n").errors(), @"");
}

#[test]
fn an_unknown_table_names_the_nearest() {
    assert_snapshot!(file("[loging]\nlevel = \"info\"\n[[model]]\nname = \"digits\"\n").errors(), @"");
}

#[test]
fn a_key_in_the_wrong_table_is_told_its_place() {
    assert_snapshot!(file("port = 80\n[server]\nmax_batch_size = 8\nsettings = {}\n[batching]\nroute = \"/text\"\n").errors(), @"");
}

#[test]
fn an_unknown_key_like_no_other_is_told_all() {
    assert_snapshot!(file("[logging]\nqqqqqqqq = 1\n").errors(), @"");
}

#[test]
fn an_integer_out_of_range_is_told_the_range() {
    assert_snapshot!(
        file("[server]\nport = 65536\nmodel_nice = -1\n[[models]]\nname = \"a\"\nplugin = \"b\"\nworkers = 257\n[models.batching]\nmax_batch_size = 0\nmax_batch_weight = 0\nmax_queue_size = 99999999999999999999999999999999999999999999\n").errors(),
        @""
    );
}

#[test]
fn a_value_of_the_wrong_type_is_told_the_right_one() {
    assert_snapshot!(
        file("[server]\nport = \"8080\"\nhost = 7\ncompression = \"true\"\ndocs = 1\nmax_connections = 1.5\ncors_allowed_origins = \"*\"\nmax_json_depth = [1]\nhttp_workers = 2024-01-01\n[batching]\nmax_batch_weight = \"4096\"\nmax_queue_weight = { a = 1 }\n").errors(),
        @""
    );
}

#[test]
fn a_duration_needs_a_unit() {
    assert_snapshot!(
        file("[server]\nkeep_alive = 75\nheader_timeout = \"10\"\nbody_timeout = 1.5\nrequest_timeout = \"5 parsecs\"\nreload_timeout = true\n").errors(),
        @""
    );
}

#[test]
fn a_duration_out_of_range_is_told_the_range() {
    assert_snapshot!(file("[server]\nheader_timeout = \"0s\"\ndrain_timeout = \"5M\"\n[batching]\nmax_delay = \"2m\"\n").errors(), @"");
}

#[test]
fn a_size_needs_a_unit() {
    for (written, hint) in [
        ("67108864", "\"64MiB\""),
        ("1000", "\"1000B\""),
        ("\"64\"", "\"64B\""),
        ("\"64M\"", "\"64MiB\" counts in 1024s, \"64MB\" in 1000s"),
        ("\"1.5GiB\"", "a whole number and a unit"),
    ] {
        let message = file(&format!("[server]\nmax_body_size = {written}\n")).errors();
        assert!(message.contains(hint), "{message}");
    }
    assert_snapshot!(file("[server]\nmax_body_size = 67108864\n").errors(), @"");
}

#[test]
fn a_size_out_of_range_is_told_the_range() {
    assert_snapshot!(file("[server]\nmax_body_size = \"1B\"\n").errors(), @"");
}

#[test]
fn a_wrong_word_names_the_nearest() {
    assert_snapshot!(file("[logging]\nformat = \"jsno\"\n[batching]\npolicy = \"adaptive\"\nweight_rule = 3\n").errors(), @"");
}

#[test]
fn a_mistyped_log_level_is_not_taken_for_a_module() {
    assert_snapshot!(file("[logging]\nlevel = \"warning\"\n").errors(), @"");
}

#[test]
fn a_bad_element_of_a_list_is_named() {
    assert_snapshot!(file("[server]\ncors_allowed_origins = [\"https://a.example\", \"https://b.example/\"]\n[logging]\naccess_log_exclude = [\"health\"]\n").errors(), @"");
}

#[test]
fn a_host_with_a_port_is_told_where_the_port_goes() {
    assert_snapshot!(file("[server]\nhost = \"0.0.0.0:8080\"\n").errors(), @"");
}

#[test]
fn required_keys_are_asked_for() {
    assert_snapshot!(file("[[models]]\nname = \"digits\"\n\n[[models]]\nplugin = \"onnx\"\n").errors(), @"");
}

#[test]
fn a_bad_name_says_which_character() {
    assert_snapshot!(file("[[models]]\nname = \"my model\"\nplugin = \"\"\ndefault_task = \".hidden\"\n[models.tasks.\"a/b\"]\n").errors(), @"");
}

#[test]
fn two_models_of_one_name_are_refused() {
    assert_snapshot!(file("[[models]]\nname = \"digits\"\nplugin = \"a\"\n[[models]]\nname = \"digits\"\nplugin = \"b\"\n").errors(), @"");
}

#[test]
fn two_tasks_of_one_route_are_refused() {
    assert_snapshot!(
        file("[[models]]\nname = \"a\"\nplugin = \"a\"\ntasks.x.route = \"/text\"\n[[models]]\nname = \"b\"\nplugin = \"b\"\n[models.tasks.text]\nroute = \"/text\"\n").errors(),
        @""
    );
}

#[test]
fn a_route_leaves_the_servers_own_paths_alone() {
    assert_snapshot!(
        file("[[models]]\nname = \"a\"\nplugin = \"a\"\n[models.tasks.x]\nroute = \"/v1/x\"\n[models.tasks.y]\nroute = \"text\"\n[models.tasks.z]\nroute = \"/a b\"\n").errors(),
        @""
    );
}

#[test]
fn tables_of_the_wrong_shape_are_told_the_right_one() {
    assert_snapshot!(file("server = 8080\n[models]\nname = \"a\"\n").errors(), @"");
    assert_snapshot!(file("models = [1]\n[[logging]]\nlevel = \"info\"\n").errors(), @"");
    assert_snapshot!(file("[[models]]\nname = \"a\"\nplugin = \"a\"\nsettings = \"x\"\n[models.tasks]\nroute = \"/text\"\n").errors(), @"");
}

#[test]
fn a_setting_that_json_cannot_carry_is_refused() {
    assert_snapshot!(file("[[models]]\nname = \"a\"\nplugin = \"a\"\n[models.settings]\nscale = [1.0, nan]\nbig = 99999999999999999999\n").errors(), @"");
}

#[test]
fn a_long_line_is_not_quoted() {
    let text = format!("[server]\nhost = \"{}\"\n", "x:".repeat(100));
    assert_eq!(
        file(&text).errors().lines().count(),
        2,
        "the message and its hint"
    );
}

#[test]
fn a_line_with_tabs_and_wide_letters_is_marked_where_it_is_wrong() {
    assert_snapshot!(file("[server]\n\tcors_allowed_origins = [\"ü\"]\n").errors(), @"");
}
