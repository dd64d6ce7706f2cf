//! Checks a plugin's file by reading it, before any of its code runs.
//!
//! `dlopen` does not report such problems well: a truncated file terminates the process with SIGBUS, a library for another
//! architecture results in "no such file", and a text file in "invalid ELF header". This module reads the file first and has
//! an error for each case. All it knows about plugins is the name of the symbol that they export.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use abi_stable::library::ROOT_MODULE_LOADER_NAME;
use object::elf;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{NativeEndian, Object, ObjectSymbol, ReadCache};

use super::missing_file;

/// Why a file cannot be a plugin.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The file does not exist.
    #[error("the file does not exist{hint}")]
    NotFound {
        /// Where it may be instead. Starts with `; `, or is empty.
        hint: String,
    },
    /// It is a directory, a device or a socket.
    #[error("expected a file, got {got}")]
    NotAFile {
        /// What it is, with an article.
        got: &'static str,
    },
    /// It cannot be opened or read.
    #[error("the file cannot be read")]
    Unreadable(#[source] io::Error),
    /// It is empty.
    #[error("the file is empty; a build may still be writing it, or copying it may have failed")]
    Empty,
    /// It is not an ELF file.
    #[error("expected a shared library (ELF), got {got}{hint}")]
    NotElf {
        /// What it looks like, with an article.
        got: &'static str,
        /// What to do. Starts with `; `, or is empty.
        hint: &'static str,
    },
    /// The file is shorter than its header declares.
    #[error(
        "the file is truncated: its header declares {expected} bytes, but it has {got}; check that it was copied completely"
    )]
    Truncated {
        /// Minimum size of the file in bytes, according to its header.
        expected: u64,
        /// Actual size in bytes.
        got: u64,
    },
    /// It was built for a 32-bit machine.
    #[error("the library is for 32-bit programs, but this server is a 64-bit program")]
    WrongClass,
    /// It was built for a machine with the other byte order.
    #[error("the library is {got}-endian, but this server is {expected}-endian")]
    WrongEndianness {
        /// Byte order of the library.
        got: &'static str,
        /// Byte order of this server.
        expected: &'static str,
    },
    /// It was built for another processor.
    #[error("the library is for {got}, but this server runs on {expected}; build it for this machine")]
    WrongMachine {
        /// Processor of the library.
        got: String,
        /// Processor of this server.
        expected: String,
    },
    /// It is an ELF file, but not a shared library.
    #[error("expected a shared library, got {got}{hint}")]
    WrongType {
        /// What it is, with an article.
        got: String,
        /// What to do. Starts with `; `, or is empty.
        hint: &'static str,
    },
    /// The header is inconsistent.
    #[error("the ELF file is corrupt")]
    Damaged(#[source] object::read::Error),
    /// It is a shared library, but not a plugin.
    #[error(
        "the library does not export a model: add `export_model!(…)` to the plugin's source (expected symbol `{ROOT_MODULE_LOADER_NAME}`)"
    )]
    NotAPlugin,
}

/// Properties of a library, from its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryFacts {
    /// Size of the file in bytes.
    pub size: u64,
    /// The processor that it was built for.
    pub machine: String,
    /// Its SONAME, if it has one.
    pub soname: Option<String>,
    /// Names of the shared libraries that it depends on.
    pub needed: Vec<String>,
    /// Where the linker searches for them in addition to the system's directories.
    pub run_path: Option<String>,
    /// Whether its thread-local storage comes from the small reserve that a process has for libraries that are opened late.
    pub static_tls: bool,
}

/// Reads the header of `file`.
pub(super) fn check(file: &Path) -> Result<LibraryFacts, HeaderError> {
    let (mut opened, size) = open(file)?;
    let mut start = [0; 64];
    let length = read_up_to(&mut opened, &mut start).map_err(HeaderError::Unreadable)?;
    check_identity(&start[..length], size)?;
    let cache = ReadCache::new(opened);
    let header = elf::FileHeader64::<NativeEndian>::parse(&cache).map_err(HeaderError::Damaged)?;
    check_extent(header, &cache, size)?;
    let library = ElfFile64::<NativeEndian, _>::parse(&cache).map_err(HeaderError::Damaged)?;
    check_type(&library)?;
    let facts = read_facts(&library, size)?;
    let mut symbols = library.dynamic_symbols();
    let exported = symbols.any(|symbol| {
        symbol.is_definition() && symbol.name_bytes() == Ok(ROOT_MODULE_LOADER_NAME.as_bytes())
    });
    if exported {
        Ok(facts)
    } else {
        Err(HeaderError::NotAPlugin)
    }
}

/// Opens a regular file and returns its size.
pub(super) fn open(file: &Path) -> Result<(File, u64), HeaderError> {
    let metadata = match std::fs::metadata(file) {
        Ok(metadata) => metadata,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Err(HeaderError::NotFound {
                hint: missing_file::hint(file),
            });
        }
        Err(error) => return Err(HeaderError::Unreadable(error)),
    };
    // Checked before opening, because opening a FIFO would wait for a writer.
    if metadata.is_dir() {
        return Err(HeaderError::NotAFile { got: "a directory" });
    }
    if !metadata.is_file() {
        return Err(HeaderError::NotAFile {
            got: "a device, a socket or a pipe",
        });
    }
    let opened = File::open(file).map_err(HeaderError::Unreadable)?;
    Ok((opened, metadata.len()))
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Checks the start of the file, which identifies an ELF file for this machine even if the rest is missing.
fn check_identity(start: &[u8], size: u64) -> Result<(), HeaderError> {
    if start.is_empty() {
        return Err(HeaderError::Empty);
    }
    if !start.starts_with(b"\x7fELF") {
        let (got, hint) = describe_non_elf(start);
        return Err(HeaderError::NotElf { got, hint });
    }
    if start.len() < 64 {
        return Err(HeaderError::Truncated {
            expected: 64,
            got: size,
        });
    }
    if start[4] != elf::ELFCLASS64.0 {
        return Err(HeaderError::WrongClass);
    }
    let little = start[5] == elf::ELFDATA2LSB.0;
    let name = |little| if little { "little" } else { "big" };
    if little != cfg!(target_endian = "little") {
        return Err(HeaderError::WrongEndianness {
            got: name(little),
            expected: name(!little),
        });
    }
    let machine = elf::Machine(u16::from_ne_bytes([start[18], start[19]]));
    match this_machine() {
        Some(expected) if expected != machine => Err(HeaderError::WrongMachine {
            got: machine_name(machine),
            expected: machine_name(expected),
        }),
        _ => Ok(()),
    }
}

/// Describes a file that is not ELF, and what to do about it.
fn describe_non_elf(start: &[u8]) -> (&'static str, &'static str) {
    const CDYLIB: &str = "; set `crate-type = [\"cdylib\"]` and use the lib*.so file";
    const LINUX: &str = "; build it for Linux";
    if start.starts_with(b"!<arch>\n") || start.starts_with(b"!<thin>\n") {
        ("a static library (.a or .rlib)", CDYLIB)
    } else if start.starts_with(b"MZ") {
        ("a Windows library or program", LINUX)
    } else if [0xfeed_facf, 0xfeed_face, 0xcafe_babe]
        .iter()
        .any(|magic: &u32| start.starts_with(&magic.to_le_bytes()) || start.starts_with(&magic.to_be_bytes()))
    {
        ("a macOS library or program", LINUX)
    } else if start.starts_with(b"PK\x03\x04") {
        ("a zip archive", "; unpack it")
    } else if start.starts_with(&[0x1f, 0x8b]) {
        ("a gzip archive", "; unpack it")
    } else if start.starts_with(b"version https://git-lfs") {
        ("a Git LFS pointer", "; run `git lfs pull`")
    } else if start
        .iter()
        .all(|&byte| byte >= b' ' || byte.is_ascii_whitespace())
    {
        ("a text file", "")
    } else {
        ("a file in an unknown format", "")
    }
}

/// Checks that all loaded segments and both header tables are within the file. Accessing a mapped page past the end of the
/// file raises SIGBUS.
fn check_extent<'data>(
    header: &'data elf::FileHeader64<NativeEndian>,
    data: &'data ReadCache<File>,
    size: u64,
) -> Result<(), HeaderError> {
    let table =
        |offset: u64, count: u16, entry: u16| offset.saturating_add(u64::from(count) * u64::from(entry));
    let endian = NativeEndian;
    let mut expected = table(
        header.e_phoff(endian),
        header.e_phnum(endian),
        header.e_phentsize(endian),
    );
    if expected <= size {
        let segments = header
            .program_headers(endian, data)
            .map_err(HeaderError::Damaged)?;
        for segment in segments
            .iter()
            .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
        {
            let end = segment.p_offset(endian).saturating_add(segment.p_filesz(endian));
            expected = expected.max(end);
        }
        expected = expected.max(table(
            header.e_shoff(endian),
            header.e_shnum(endian),
            header.e_shentsize(endian),
        ));
    }
    if expected > size {
        return Err(HeaderError::Truncated { expected, got: size });
    }
    Ok(())
}

type Library<'data> = ElfFile64<'data, NativeEndian, &'data ReadCache<File>>;

fn check_type(library: &Library<'_>) -> Result<(), HeaderError> {
    const CDYLIB: &str = "; set `crate-type = [\"cdylib\"]`";
    let wrong = |got: &str, hint| {
        Err(HeaderError::WrongType {
            got: got.to_owned(),
            hint,
        })
    };
    match library.elf_header().e_type(NativeEndian) {
        // A position-independent executable has the type of a library, but carries the flag DF_1_PIE.
        elf::ET_DYN if is_pie(library)? => wrong("a program", CDYLIB),
        elf::ET_DYN => Ok(()),
        elf::ET_EXEC => wrong("a program", CDYLIB),
        elf::ET_REL => wrong("an object file (.o)", "; link it as a shared library"),
        elf::ET_CORE => wrong("a core dump", ""),
        other => wrong(&format!("an ELF file of type {}", other.0), ""),
    }
}

fn is_pie(library: &Library<'_>) -> Result<bool, HeaderError> {
    let table = library.elf_dynamic_table().map_err(HeaderError::Damaged)?;
    Ok(table
        .iter()
        .any(|entry| entry.tag == elf::DT_FLAGS_1 && entry.val & elf::DF_1_PIE.0 != 0))
}

fn read_facts(library: &Library<'_>, size: u64) -> Result<LibraryFacts, HeaderError> {
    let table = library.elf_dynamic_table().map_err(HeaderError::Damaged)?;
    let mut facts = LibraryFacts {
        size,
        machine: machine_name(library.elf_header().e_machine(NativeEndian)),
        soname: None,
        needed: Vec::new(),
        run_path: None,
        static_tls: false,
    };
    for entry in table.iter() {
        let text = || {
            let bytes = table.string(entry).map_err(HeaderError::Damaged)?;
            Ok::<_, HeaderError>(String::from_utf8_lossy(bytes).into_owned())
        };
        match entry.tag {
            elf::DT_NEEDED => facts.needed.push(text()?),
            elf::DT_SONAME => facts.soname = Some(text()?),
            elf::DT_RUNPATH | elf::DT_RPATH => facts.run_path = Some(text()?),
            elf::DT_FLAGS => facts.static_tls = entry.val & elf::DF_STATIC_TLS.0 != 0,
            _ => {}
        }
    }
    Ok(facts)
}

/// The machine that this server was built for. `None` if it is not in this list; then the machine is not checked.
fn this_machine() -> Option<elf::Machine> {
    if cfg!(target_arch = "x86_64") {
        Some(elf::EM_X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(elf::EM_AARCH64)
    } else if cfg!(target_arch = "riscv64") {
        Some(elf::EM_RISCV)
    } else {
        None
    }
}

fn machine_name(machine: elf::Machine) -> String {
    match machine {
        elf::EM_X86_64 => "x86-64".to_owned(),
        elf::EM_386 => "x86 (32 bit)".to_owned(),
        elf::EM_AARCH64 => "64-bit ARM (aarch64)".to_owned(),
        elf::EM_ARM => "32-bit ARM".to_owned(),
        elf::EM_RISCV => "RISC-V".to_owned(),
        elf::EM_PPC64 => "64-bit PowerPC".to_owned(),
        elf::EM_S390 => "IBM Z (s390x)".to_owned(),
        other => format!("machine type {}", other.0),
    }
}
