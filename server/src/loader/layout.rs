//! Whether a plugin and this server mean the same by the types of the plugin ABI.

use abi_stable::abi_stability::abi_checking::{
    AbiInstabilityErrors, CheckingGlobals, check_layout_compatibility_with_globals,
};
use abi_stable::type_layout::TypeLayout;

/// Most mismatches that an error names.
const MOST_MISMATCHES: usize = 5;
/// Most characters of one side of a mismatch.
const MOST_CHARACTERS: usize = 120;

/// Whether one of the two layouts extends the other: the plugin may be older or newer than the server.
///
/// abi_stable's own check takes newer plugins only. Each direction has globals of its own, since those of the process
/// would keep references into this plugin.
pub(super) fn check_layouts(server: &'static TypeLayout, plugin: &'static TypeLayout) -> Result<(), String> {
    let check = |interface, implementation| {
        check_layout_compatibility_with_globals(interface, implementation, &CheckingGlobals::new())
    };
    let Err(newer) = check(server, plugin) else {
        return Ok(());
    };
    match check(plugin, server) {
        Ok(()) => Ok(()),
        Err(_) => Err(shorten(&newer)),
    }
}

/// The mismatches of an abi_stable report of up to 250 kB: where, what, expected, found.
///
/// The report has no public structure below the list of mismatched types, so their texts are taken apart.
fn shorten(report: &AbiInstabilityErrors) -> String {
    let mut mismatches: Vec<String> = Vec::new();
    let mut more = 0;
    for errors in &report.errors {
        let trace: Vec<String> = errors.stack_trace.iter().map(|at| at.found.to_string()).collect();
        let place = place(&trace);
        for error in errors.to_string().split("\nError:").skip(1) {
            let (what, rest) = error.split_once("\nExpected:\n").unwrap_or((error, ""));
            let (expected, found) = rest.split_once("\nFound:\n").unwrap_or((rest, ""));
            let mismatch = format!(
                "{place}: {} (expected {}, found {})",
                one_line(what),
                one_line(expected),
                one_line(found)
            );
            if mismatches.contains(&mismatch) {
                continue;
            }
            if mismatches.len() == MOST_MISMATCHES {
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
        // An error without expectations, such as two types that disagree on a rule of their own.
        return one_line(&report.errors.iter().map(ToString::to_string).collect::<String>());
    }
    mismatches.join("; ")
}

/// `Struct.field` where the last entry of a trace is a field, else the type it is about.
fn place(trace: &[String]) -> String {
    let part = |entry: Option<&String>, label| {
        let line = entry?.lines().find_map(|line| line.trim().strip_prefix(label))?;
        Some(one_line(line))
    };
    let last = trace.last();
    let field: Option<String> = part(last, "field_name:");
    let owner = part(trace.iter().rev().nth(1), "type:");
    match (owner, field, part(last, "type:")) {
        // Arguments and the pointers that abi_stable follows have no names of their own.
        (Some(owner), Some(field), _)
            if field.starts_with(|first: char| first.is_alphabetic() || first == '_') =>
        {
            format!("{owner}.{field}")
        }
        (_, _, Some(kind)) => kind,
        _ => "the module".to_owned(),
    }
}

/// One line of at most [`MOST_CHARACTERS`] characters.
pub(super) fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST_CHARACTERS) {
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
    fn a_plugin_with_fewer_or_more_functions_is_taken() {
        let (old, new) = (old::Module_Ref::LAYOUT, appended::Module_Ref::LAYOUT);
        assert_eq!(check_layouts(old, old), Ok(()));
        assert_eq!(check_layouts(old, new), Ok(()));
        assert_eq!(check_layouts(new, old), Ok(()));
    }

    #[test]
    fn a_changed_type_is_refused_in_one_line_that_says_what_changed() {
        for (server, plugin) in [
            (old::Module_Ref::LAYOUT, broken::Module_Ref::LAYOUT),
            (broken::Module_Ref::LAYOUT, appended::Module_Ref::LAYOUT),
        ] {
            let error = check_layouts(server, plugin).expect_err("`count` has two types");
            assert!(!error.contains('\n'), "{error}");
            assert!(error.len() < 2000, "{error}");
            assert!(error.contains("u32") && error.contains("u64"), "{error}");
        }
        let error = check_layouts(old::Module_Ref::LAYOUT, broken::Module_Ref::LAYOUT).expect_err("as above");
        assert_eq!(error, "Argument.count: mismatched type (expected u32, found u64)");
    }
}
