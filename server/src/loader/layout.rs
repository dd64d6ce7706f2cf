//! Compares the types of the plugin ABI in a plugin with those in this server.

use abi_stable::abi_stability::abi_checking::{
    AbiInstabilityErrors, CheckingGlobals, check_layout_compatibility_with_globals,
};
use abi_stable::type_layout::TypeLayout;

/// Maximum number of mismatches in an error.
const MAX_MISMATCHES: usize = 5;
/// Maximum length of each part of a mismatch.
const MAX_CHARACTERS: usize = 120;

/// Checks that one of the two layouts extends the other: the plugin may be older or newer than the server.
///
/// The check in abi_stable accepts only newer plugins, so it is called in both directions. Each call has its own globals,
/// because the process-wide ones would keep references into this plugin.
pub(super) fn check_layouts(server: &'static TypeLayout, plugin: &'static TypeLayout) -> Result<(), String> {
    let check = |interface, implementation| {
        check_layout_compatibility_with_globals(interface, implementation, &CheckingGlobals::new())
    };
    let Err(newer) = check(server, plugin) else {
        return Ok(());
    };
    match check(plugin, server) {
        Ok(()) => Ok(()),
        Err(_) => Err(summarize(&newer)),
    }
}

/// Summarizes an abi_stable report, which can be 250 kB long, as a list of mismatches: where, what, expected, found.
///
/// The report has no public structure below the list of mismatched types, so this parses its text.
fn summarize(report: &AbiInstabilityErrors) -> String {
    let mut mismatches: Vec<String> = Vec::new();
    let mut more = 0;
    for errors in &report.errors {
        let trace: Vec<String> = errors.stack_trace.iter().map(|at| at.found.to_string()).collect();
        let location = location(&trace);
        for error in errors.to_string().split("\nError:").skip(1) {
            let (what, rest) = error.split_once("\nExpected:\n").unwrap_or((error, ""));
            let (expected, found) = rest.split_once("\nFound:\n").unwrap_or((rest, ""));
            let mismatch = format!(
                "{location}: {} (expected {}, found {})",
                one_line(what),
                one_line(expected),
                one_line(found)
            );
            if mismatches.contains(&mismatch) {
                continue;
            }
            if mismatches.len() == MAX_MISMATCHES {
                more += 1;
            } else {
                mismatches.push(mismatch);
            }
        }
    }
    if more > 0 {
        mismatches.push(format!("and {more} more"));
    }
    if mismatches.is_empty() {
        // Some errors have no expectation, such as one about two types that disagree on their own rules.
        return one_line(&report.errors.iter().map(ToString::to_string).collect::<String>());
    }
    mismatches.join("; ")
}

/// `Struct.field` if the last entry of a trace is a field, otherwise the name of the type.
fn location(trace: &[String]) -> String {
    let part = |entry: Option<&String>, label| {
        let line = entry?.lines().find_map(|line| line.trim().strip_prefix(label))?;
        Some(one_line(line))
    };
    let last = trace.last();
    let field: Option<String> = part(last, "field_name:");
    let owner = part(trace.iter().rev().nth(1), "type:");
    match (owner, field, part(last, "type:")) {
        // Arguments and the pointers that abi_stable follows have no names.
        (Some(owner), Some(field), _)
            if field.starts_with(|first: char| first.is_alphabetic() || first == '_') =>
        {
            format!("{owner}.{field}")
        }
        (_, _, Some(kind)) => kind,
        _ => "the module".to_owned(),
    }
}

/// The text as one line of at most [`MAX_CHARACTERS`] characters.
pub(super) fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
#[allow(
    unsafe_code,
    non_camel_case_types,
    non_local_definitions,
    unreachable_pub,
    dead_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::allow_attributes_without_reason,
    reason = "the expansion of abi_stable's derive macro"
)]
mod tests {
    use abi_stable::StableAbi;

    use super::*;

    mod old {
        use abi_stable::StableAbi;

        #[repr(C)]
        #[derive(StableAbi)]
        pub struct Argument {
            pub count: u32,
            pub name: abi_stable::std_types::RString,
        }

        #[repr(C)]
        #[derive(StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = Module_Ref)))]
        pub struct Module {
            #[sabi(last_prefix_field)]
            pub load: extern "C" fn(Argument) -> u32,
        }
    }

    mod appended {
        use abi_stable::StableAbi;

        use super::old::Argument;

        #[repr(C)]
        #[derive(StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = Module_Ref)))]
        pub struct Module {
            #[sabi(last_prefix_field)]
            pub load: extern "C" fn(Argument) -> u32,
            pub unload: extern "C" fn(u32),
        }
    }

    mod broken {
        use abi_stable::StableAbi;

        #[repr(C)]
        #[derive(StableAbi)]
        pub struct Argument {
            pub count: u64,
            pub name: abi_stable::std_types::RString,
        }

        #[repr(C)]
        #[derive(StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = Module_Ref)))]
        pub struct Module {
            #[sabi(last_prefix_field)]
            pub load: extern "C" fn(Argument) -> u32,
        }
    }

    #[test]
    fn a_plugin_with_fewer_or_more_functions_is_accepted() {
        let (old, new) = (old::Module_Ref::LAYOUT, appended::Module_Ref::LAYOUT);
        assert_eq!(check_layouts(old, old), Ok(()));
        assert_eq!(check_layouts(old, new), Ok(()));
        assert_eq!(check_layouts(new, old), Ok(()));
    }

    #[test]
    fn a_changed_type_is_rejected_with_one_line_that_names_it() {
        for (server, plugin) in [
            (old::Module_Ref::LAYOUT, broken::Module_Ref::LAYOUT),
            (broken::Module_Ref::LAYOUT, appended::Module_Ref::LAYOUT),
        ] {
            let error = check_layouts(server, plugin).expect_err("`count` has two types");
            assert!(!error.contains('\n'), "{error}");
            assert!(error.len() < 2000, "{error}");
            assert!(error.contains("u32") && error.contains("u64"), "{error}");
        }
        let error = check_layouts(old::Module_Ref::LAYOUT, broken::Module_Ref::LAYOUT)
            .expect_err("`count` has two types");
        assert_eq!(error, "Argument.count: mismatched type (expected u32, found u64)");
    }
}
