//! Checks that a JPEG file is complete and undamaged, and decodes unusual ones.
//!
//! Decoders fill in missing data and skip invalid data, so a damaged file would become a plausible image. The check reads every
//! marker segment and every Huffman code up to the end marker, without computing pixels. It covers Huffman-coded sequential and
//! progressive files with 8-bit samples, which are those that the decoders support. It ignores anything after the end marker,
//! such as previews and the other images of a multi-picture file.
//!
//! Terms and section numbers are those of ITU-T T.81.

mod frame;
mod huffman;
mod scan;
mod unusual;

use frame::{COEFFICIENTS, Frame};
use huffman::{Bits, Code};
use scan::Scan;

pub(crate) use unusual::UnusualJpeg;

use super::{Damage, corrupt, truncated};

/// Marker codes (table B.1).
mod marker {
    pub(super) const TEM: u8 = 0x01;
    pub(super) const SOF0: u8 = 0xC0;
    pub(super) const SOF2: u8 = 0xC2;
    pub(super) const SOF3: u8 = 0xC3;
    /// In the range of the frame headers, but not a frame header.
    pub(super) const DHT: u8 = 0xC4;
    pub(super) const SOF15: u8 = 0xCF;
    pub(super) const RST0: u8 = 0xD0;
    pub(super) const RST7: u8 = 0xD7;
    pub(super) const SOI: u8 = 0xD8;
    pub(super) const EOI: u8 = 0xD9;
    pub(super) const SOS: u8 = 0xDA;
    pub(super) const DQT: u8 = 0xDB;
    pub(super) const DRI: u8 = 0xDD;
}

/// A file whose frame header has been read.
pub(crate) struct Jpeg<'a> {
    reader: Reader<'a>,
    frame: Frame,
}

impl<'a> Jpeg<'a> {
    /// Reads a file up to its frame header.
    ///
    /// # Errors
    /// The first damage found.
    pub(crate) fn open(file: &'a [u8]) -> Result<Self, Damage> {
        let mut reader = Reader {
            file,
            position: 0,
            usable: 0,
            tables: Tables::default(),
            restart_interval: 0,
        };
        if reader.marker()? != marker::SOI {
            return corrupt("it does not start with a start marker");
        }
        loop {
            let code = reader.marker()?;
            if let marker::EOI | marker::SOS = code {
                return corrupt("it has no frame header");
            }
            if let Some((marker::SOF0..=marker::SOF2, data)) = reader.segment(code)? {
                let frame = Frame::new(data, code == marker::SOF2)?;
                return Ok(Self { reader, frame });
            }
        }
    }

    /// Returns the width and height.
    pub(crate) fn size(&self) -> (u32, u32) {
        self.frame.size()
    }

    /// Whether the decoder of the `image` crate decodes the part that was read correctly. It does not if a sequential file has
    /// several scans, or if a component has more samples than the first one.
    pub(crate) fn is_usual(&self) -> bool {
        self.frame.is_usual()
    }

    /// Returns the usable part of a truncated file, with an end marker appended.
    pub(crate) fn repaired(&self) -> Vec<u8> {
        let usable = &self.reader.file[..self.reader.usable];
        [usable, &[0xFF, marker::EOI]].concat()
    }

    /// Reads the rest of the file up to the end marker.
    ///
    /// # Errors
    /// The first damage found.
    pub(crate) fn check(&mut self) -> Result<(), Damage> {
        let Self { reader, frame } = self;
        loop {
            let code = reader.marker()?;
            match reader.segment(code)? {
                Some((marker::SOS, header)) => reader.scan(frame, header)?,
                Some((marker::SOF0..=marker::SOF2, _)) => {
                    return corrupt("it has more than one frame header");
                }
                Some(_) => {}
                None if code == marker::EOI => return frame.finish(),
                None => {}
            }
        }
    }
}

/// The tables used by scans, by destination.
#[derive(Default)]
struct Tables {
    dc: [Option<Code>; 4],
    ac: [Option<Code>; 4],
    quantization: [Option<Steps>; 4],
}

/// The quantization steps of the coefficients, in zigzag order.
type Steps = [u16; COEFFICIENTS];

/// A file and the current position in it.
struct Reader<'a> {
    file: &'a [u8],
    position: usize,
    /// End of the part that a decoder can use if the file is truncated.
    usable: usize,
    tables: Tables,
    /// Number of MCUs between restart markers, or 0 if there are none.
    restart_interval: usize,
}

impl<'a> Reader<'a> {
    /// Reads the next marker and any fill bytes before it.
    fn marker(&mut self) -> Result<u8, Damage> {
        let start = self.position;
        self.usable = start;
        while self.file.get(self.position) == Some(&0xFF) {
            self.position += 1;
        }
        match self.file.get(self.position) {
            None => truncated("the end marker is missing"),
            Some(code) if self.position == start => {
                corrupt(format!("expected a marker at offset {start}, found {code:#04x}"))
            }
            Some(code) => {
                self.position += 1;
                Ok(*code)
            }
        }
    }

    /// Reads the segment of a marker and any tables in it. Returns the marker and its data, or `None` for a marker without a
    /// segment.
    fn segment(&mut self, code: u8) -> Result<Option<(u8, &'a [u8])>, Damage> {
        let start = self.position;
        match code {
            // Some encoders write a restart marker after the last interval.
            marker::TEM | marker::RST0..=marker::RST7 | marker::EOI => return Ok(None),
            0x00..=0xBF | marker::SOI => {
                return corrupt(format!("unexpected marker {code:#04x} before offset {start}"));
            }
            _ => {}
        }
        let ends = || Damage::Truncated(format!("it ends within the segment at offset {start}"));
        let file: &'a [u8] = self.file;
        let rest = &file[start..];
        let length = rest.first_chunk().ok_or_else(ends)?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length < 2 {
            return corrupt(format!(
                "the segment at offset {start} has a length of {length} bytes"
            ));
        }
        let data = rest.get(2..length).ok_or_else(ends)?;
        self.position += length;
        let read = match code {
            marker::DHT => self.huffman_tables(data),
            marker::DQT => self.quantization_tables(data),
            marker::DRI => self.restart_interval(data),
            marker::SOF3..=marker::SOF15 => {
                let expected = "expected a sequential or progressive frame with Huffman coding";
                return Err(Damage::Unsupported(format!(
                    "its frame has the marker {code:#04x}, {expected}"
                )));
            }
            _ => Some(()),
        };
        match read {
            Some(()) => Ok(Some((code, data))),
            None => corrupt(format!("the segment {code:#04x} at offset {start} is invalid")),
        }
    }

    /// Reads Huffman tables (section B.2.4.2).
    fn huffman_tables(&mut self, mut data: &[u8]) -> Option<()> {
        while let Some((&selector, rest)) = data.split_first() {
            let (lengths, rest) = rest.split_first_chunk()?;
            let count = lengths.iter().map(|count| usize::from(*count)).sum();
            let (symbols, rest) = rest.split_at_checked(count)?;
            let tables = match selector >> 4 {
                0 => &mut self.tables.dc,
                1 => &mut self.tables.ac,
                _ => return None,
            };
            *tables.get_mut(usize::from(selector & 0xF))? = Some(Code::new(lengths, symbols)?);
            data = rest;
        }
        Some(())
    }

    /// Reads quantization tables (section B.2.4.1).
    fn quantization_tables(&mut self, mut data: &[u8]) -> Option<()> {
        while let Some((&selector, rest)) = data.split_first() {
            let mut steps = [0; COEFFICIENTS];
            let width = usize::from(selector >> 4) + 1;
            let (elements, rest) = rest.split_at_checked(COEFFICIENTS * width)?;
            for (step, element) in steps.iter_mut().zip(elements.chunks_exact(width)) {
                *step = match *element {
                    [low] => low.into(),
                    [high, low] => u16::from_be_bytes([high, low]),
                    _ => return None,
                };
            }
            *self.tables.quantization.get_mut(usize::from(selector & 0xF))? = Some(steps);
            data = rest;
        }
        Some(())
    }

    /// Reads the restart interval (section B.2.4.4).
    fn restart_interval(&mut self, data: &[u8]) -> Option<()> {
        self.restart_interval = usize::from(u16::from_be_bytes(*data.first_chunk()?));
        Some(())
    }

    /// Reads a scan: its header (section B.2.3) and its entropy-coded segments.
    fn scan(&mut self, frame: &mut Frame, header: &[u8]) -> Result<(), Damage> {
        let start = self.position;
        self.usable = self.file.len();
        let Some((parts, band)) = frame.scan_header(header, &self.tables) else {
            return corrupt(format!("the scan header before offset {start} is invalid"));
        };
        frame.advance(&parts, band)?;
        let scan = Scan::new(frame, &parts, band, Bits::new(self.file, start));
        self.position = scan.read(self.restart_interval)?;
        Ok(())
    }
}
