//! No message shows a key or a value of `[models.env]`.

use insta::assert_snapshot;

use super::file;

/// The secret in these tests.
const SECRET: &str = "hunter2";

#[test]
fn the_error_for_an_invalid_key_does_not_show_it() {
    assert_snapshot!(
        file(r#"[server]
admin_key = "hunter2"
api_keys = ["hunter2", "hunter2 hunter2 hunter2"]
cors_allowed_origins = ["https://user:hunter2@example.com/"]
"#).errors(),
        @r#"
    models.toml:2:13: invalid value for `admin_key` in [server]: found a string of 7 characters, expected a key of at least 16 characters, without spaces
        hint: `openssl rand -hex 16` generates one

    models.toml:3:13: invalid element of `api_keys` in [server]: found a string of 7 characters, expected a key of at least 16 characters, without spaces
        hint: `openssl rand -hex 16` generates one

    models.toml:4:25: invalid element of `cors_allowed_origins` in [server]: found a URL with a password, expected "*" or an origin such as "https://example.com"
        hint: remove the path and the slash at the end
    "#
    );
}

#[test]
fn no_message_shows_a_secret() {
    let lines = [
        "admin_key = hunter2",
        "admin_key = \"hunter2",
        "admin_key = 'hunter2\"",
        "admin_key = \"hunter2\" x",
        "admin_key \"hunter2\"",
        "admin_key = [\"hunter2\"]",
        "adminkey = \"hunter2\"",
        "admin-key = \"hunter2\"",
        "admin_kye = \"hunter2\"",
        "secret = \"hunter2\"",
        "api_keys = \"hunter2\"",
        "api_keys = [\"hunter2\" \"x\"]",
        "api_keys = [\n\"hunter2\",\n hunter2\n]",
        "api_keys = [\"0123456789abcdef\",\n\"hunter2\"]",
        "api_key = \"hunter2\"",
        "admin_key = \"hunter2\"\nadmin_key = \"hunter2\"",
        "host = \"http://user:hunter2@here\"",
        "[logging]\nadmin_key = \"hunter2\"",
        "[jobs]\nwebhook_secret = \"hunter2\"",
        "[jobs]\nwebhook_secret = [\"whsec_hunter2\"]",
        "[[models]]\nname = \"m\"\nplugin = \"p\"\nenv = { A = \"hunter2\" }",
        "[[models]]\nname = \"m\"\nplugin = \"p\"\nenv = \"A=hunter2\"",
        "[[models]]\nname = \"m\"\nplugin = \"p\"\n[models.env]\nA = \"hunter2\"",
        "[[models]]\nname = \"m\"\nplugin = \"p\"\nisolation = \"process\"\n[models.env]\nA = hunter2",
        "[[models]]\nname = \"m\"\nplugin = \"p\"\nisolation = \"process\"\n[models.env]\n\"A=hunter2\" = \"b\"",
        "[[models]]\nname = \"m\"\nplugin = \"p\"\nisolation = \"process\"\n[models.env]\nA = [\"hunter2\"]",
        "[[models]]\nname = \"m\"\nplugin = \"p\"\n[models.settings]\ntoken = hunter2",
    ];
    for line in lines {
        let text = format!("[server]\n{line}\n");
        let errors = file(&text).errors();
        assert!(!errors.contains(SECRET), "{line}:\n{errors}");
    }
}

#[test]
fn no_message_shows_a_secret_of_the_environment() {
    for (variable, value) in [
        ("INFERENCE_ADMIN_KEY", "hunter2"),
        ("INFERENCE_API_KEYS", "0123456789abcdef,hunter2"),
        ("INFERENCE_JOBS_WEBHOOK_SECRET", "whsec_hunter2"),
        (
            "INFERENCE_CORS_ALLOWED_ORIGINS",
            "https://user:hunter2@example.com/",
        ),
    ] {
        let variables = [(variable, value)];
        let errors = file("").variables(&variables).errors();
        assert!(errors.contains(variable) && !errors.contains(SECRET), "{errors}");
    }
    let variables = [("INFERENCE_ADMIN_KYE", SECRET)];
    let warnings = file("").variables(&variables).warnings();
    assert!(
        warnings.contains("INFERENCE_ADMIN_KEY") && !warnings.contains(SECRET),
        "{warnings}"
    );
}

#[test]
fn settings_can_be_logged_without_their_secrets() {
    let text = "[server]\nadmin_key = \"hunter2-hunter2-\"\napi_keys = [\"hunter2-hunter2-\"]\n\
                [[models]]\nname = \"m\"\nplugin = \"p\"\nisolation = \"process\"\n[models.env]\nA = \"hunter2\"\n";
    let settings = file(text).settings();
    assert_eq!(settings.models[0].resources.env["A"].expose(), SECRET);
    let shown = format!("{settings:#?}");
    assert!(!shown.contains(SECRET), "{shown}");
}
