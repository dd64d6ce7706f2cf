//! The files are valid for the tools that read them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::plugins::{executable, repository};
use crate::harness::prometheus;
use crate::harness::shipped_proxy::{Backend, deployment, nginx_config, nginx_program};
use crate::harness::{Scenario, clients, haproxy, tools};

fn read(path: &str) -> String {
    std::fs::read_to_string(deployment(path)).expect("read a file of the repository")
}

/// Runs a script of this directory with the Python of the tests, if the script's packages are installed.
fn check_manifests(text: &str) -> bool {
    let install = "python=$(tests/install)";
    let Some(python) = tools::find("INFERENCE_TEST_PYTHON", &["python3"], install) else {
        return false;
    };
    let has_packages = Command::new(&python)
        .args(["-c", "import kubernetes_validate, yaml"])
        .stderr(Stdio::null())
        .status();
    if !has_packages.is_ok_and(|status| status.success()) {
        let what = format!("{} has no kubernetes-validate", python.display());
        tools::absent(&what, "INFERENCE_TEST_PYTHON", install);
        return false;
    }
    let dir = tempfile::tempdir().expect("create a temporary directory");
    let file = dir.path().join("manifests.yaml");
    std::fs::write(&file, text).expect("write a file");
    let script = repository().join("tests/deploy/check_manifests.py");
    tools::run(Command::new(python).arg(script).arg(file));
    true
}

#[test]
fn promtool_accepts_the_configuration_and_the_alerts_fire_for_their_faults() {
    let Some(promtool) = prometheus::program("promtool") else {
        return;
    };
    let dir = deployment("prometheus");
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts.test.yml"],
        ["check", "rules", "job-alerts.yml"],
        ["test", "rules", "job-alerts.test.yml"],
    ] {
        tools::run(Command::new(&promtool).args(arguments).current_dir(&dir));
    }
}

#[test]
fn every_alert_has_a_severity_a_summary_a_runbook_and_a_test() {
    let (rules, tests) = (read("prometheus/alerts.yml"), read("prometheus/alerts.test.yml"));
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 14);
    for alert in alerts {
        let (name, rule) = alert.split_once('\n').expect("a rule follows the name");
        for part in ["severity: ", "summary: \"", "runbook: \""] {
            assert_eq!(rule.matches(part).count(), 1, "{name}: {part}");
        }
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name}");
    }
}

#[test]
fn haproxy_accepts_its_configuration() {
    let Some(program) = haproxy::program() else { return };
    tools::run(
        Command::new(program)
            .arg("-c")
            .arg("-f")
            .arg(deployment("haproxy/haproxy.cfg")),
    );
}

#[test]
fn nginx_accepts_its_configuration() {
    let Some(program) = nginx_program() else { return };
    let dir = tempfile::tempdir().expect("create a temporary directory");
    let address = "127.0.0.1:1".parse().expect("an address");
    let backend = Backend {
        http: address,
        grpc: address,
        agent_port: 1,
    };
    let config = nginx_config(dir.path(), address, address, [backend; 3]);
    tools::run(
        Command::new(program)
            .args(["-t", "-e", "stderr", "-c"])
            .arg(config),
    );
}

/// Copies the units into a directory, with the executable under test. Returns their paths.
fn copy_units(dir: &Path, drop_ins: &[&str]) -> Vec<PathBuf> {
    let service = read("systemd/inference-server.service");
    let installed = "/usr/bin/inference-server ";
    assert_eq!(service.matches(installed).count(), 2);
    let service = service.replace(installed, &format!("{} ", executable().display()));
    std::fs::write(dir.join("inference-server.service"), service).expect("write a unit");
    for unit in ["inference-server.socket", "inference-server-grpc.socket"] {
        std::fs::write(dir.join(unit), read(&format!("systemd/{unit}"))).expect("write a unit");
    }
    let drop_in_dir = dir.join("inference-server.service.d");
    std::fs::create_dir(&drop_in_dir).expect("create a directory");
    for drop_in in drop_ins {
        let text = read(&format!("systemd/inference-server.service.d/{drop_in}"));
        std::fs::write(drop_in_dir.join(drop_in), text).expect("write a drop-in");
    }
    let names = [
        "inference-server.service",
        "inference-server.socket",
        "inference-server-grpc.socket",
    ];
    names.map(|name| dir.join(name)).to_vec()
}

fn systemd_analyze() -> Option<PathBuf> {
    tools::find(
        "INFERENCE_TEST_SYSTEMD_ANALYZE",
        &["systemd-analyze"],
        "apt-get install systemd",
    )
}

/// The major version of systemd.
fn systemd_version(program: &Path) -> u32 {
    let text = tools::run(Command::new(program).arg("--version"));
    let version = text.split_whitespace().nth(1).and_then(|version| {
        let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    version.unwrap_or_else(|| panic!("no version in {text:?}"))
}

#[test]
fn systemd_accepts_the_units_with_each_of_their_drop_ins() {
    let Some(program) = systemd_analyze() else { return };
    let mut drop_ins = vec!["gpu.conf", "max-memory.conf", "generated-code.conf"];
    if systemd_version(&program) >= 253 {
        drop_ins.push("notify-reload.conf");
    }
    let each = drop_ins.iter().map(std::slice::from_ref);
    for drop_ins in std::iter::once(&[][..]).chain(each) {
        let dir = tempfile::tempdir().expect("create a temporary directory");
        let units = copy_units(dir.path(), drop_ins);
        let text = tools::run(Command::new(&program).args(["verify", "--man=no"]).args(units));
        assert_eq!(text, "", "{drop_ins:?}");
    }
}

#[test]
fn the_service_is_exposed_below_2_0_of_10() {
    let Some(program) = systemd_analyze() else { return };
    let dir = tempfile::tempdir().expect("create a temporary directory");
    let units = copy_units(dir.path(), &[]);
    // The threshold is in tenths. Exceeding it is a failure.
    tools::run(
        Command::new(program)
            .args(["security", "--no-pager", "--offline=true", "--threshold=19"])
            .arg(&units[0]),
    );
}

#[test]
fn the_kubernetes_manifests_match_the_schemas_and_each_other() {
    let Some(kubectl) = tools::find(
        "INFERENCE_TEST_KUBECTL",
        &["kubectl"],
        "apt-get install kubernetes-client",
    ) else {
        return;
    };
    let manifests = tools::run(
        Command::new(kubectl)
            .arg("kustomize")
            .arg(deployment("kubernetes")),
    );
    for kind in [
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
    ] {
        assert!(manifests.contains(&format!("kind: {kind}\n")), "{kind}");
    }
    check_manifests(&manifests);
}

#[test]
fn the_models_of_the_kubernetes_base_are_valid() {
    let config = deployment("kubernetes/models.toml");
    let scenario = Scenario::new("");
    tools::run(scenario.to_run(&["check", "--config"]).arg(config));
}

#[test]
fn the_kserve_manifests_match_the_types_of_kserve() {
    let files = ["kserve/serving-runtime.yaml", "kserve/inference-service.yaml"].map(deployment);
    let files = files.map(|file| file.to_string_lossy().into_owned());
    clients::run("kserve_manifests.py", &[&files[0], &files[1]]);
}

#[test]
fn the_compose_file_names_files_of_the_repository() {
    let text = read("compose.yaml");
    let sources: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- .")?.split_once(':'))
        .map(|(source, _)| source)
        .collect();
    assert_eq!(sources.len(), 5, "{sources:?}");
    for source in sources {
        let path = deployment("").join(format!(".{source}"));
        assert!(path.exists(), "{}", path.display());
    }
}
