//! Frames: their components, the headers of their scans, and the progress of decoding (sections A.2 and B.2).

use super::huffman::Code;
use super::{Damage, Steps, Tables, corrupt, truncated};

/// Number of coefficients of a block.
pub(super) const COEFFICIENTS: usize = 64;

/// Maximum bit position of a progressive scan.
const MAX_BIT: u8 = 13;

/// Maximum number of components that the decoder supports.
pub(super) const MAX_COMPONENTS: usize = 4;

/// The frame, as described by its header.
pub(super) struct Frame {
    pub(super) progressive: bool,
    width: usize,
    height: usize,
    /// Maximum horizontal sampling factor of all components.
    max_horizontal: usize,
    /// Maximum vertical sampling factor of all components.
    max_vertical: usize,
    /// Whether a scan did not include all components.
    has_partial_scan: bool,
    pub(super) components: Vec<Component>,
}

/// A component of a frame.
pub(super) struct Component {
    id: u8,
    pub(super) horizontal: usize,
    pub(super) vertical: usize,
    /// Destination of the quantization table.
    table: usize,
    progress: Progress,
    /// Bit sets of the nonzero AC coefficients of each block, in the order of a non-interleaved scan. Empty before the first AC
    /// scan of a progressive frame, and always empty in a sequential frame.
    pub(super) nonzero: Vec<u64>,
}

/// Progress of decoding: the bit position of the last scan of each coefficient, if any.
struct Progress([Option<u8>; COEFFICIENTS]);

/// The coefficients and bits that a scan codes.
#[derive(Clone, Copy)]
pub(super) struct Band {
    /// First coefficient, in zigzag order.
    pub(super) start: usize,
    /// Last coefficient, in zigzag order.
    pub(super) end: usize,
    /// Bit position of the previous scan of these coefficients, or 0 for the first scan.
    pub(super) high: u8,
    /// Bit position of this scan.
    pub(super) low: u8,
}

/// A component of a scan: its index and its tables.
pub(super) struct Part<'t> {
    pub(super) component: usize,
    pub(super) dc: Option<&'t Code>,
    pub(super) ac: Option<&'t Code>,
    pub(super) steps: &'t Steps,
}

impl Frame {
    /// Reads a frame header (section B.2.2).
    pub(super) fn new(data: &[u8], progressive: bool) -> Result<Self, Damage> {
        let invalid = || Damage::Corrupt("its frame header is invalid".to_owned());
        let (&[precision, y1, y2, x1, x2, count], rest) = data.split_first_chunk().ok_or_else(invalid)?;
        let count = usize::from(count);
        if precision != 8 || !(1..=MAX_COMPONENTS).contains(&count) {
            return Err(Damage::Unsupported(format!(
                "it has {count} components with {precision}-bit samples, expected at most {MAX_COMPONENTS} with 8-bit samples"
            )));
        }
        let mut components: Vec<Component> = Vec::new();
        for &[id, sampling, table] in rest.as_chunks().0.get(..count).ok_or_else(invalid)? {
            let (horizontal, vertical) = (usize::from(sampling >> 4), usize::from(sampling & 0xF));
            let is_known = components.iter().any(|component| component.id == id);
            if is_known || !(1..=4).contains(&horizontal) || !(1..=4).contains(&vertical) {
                return Err(invalid());
            }
            components.push(Component {
                id,
                horizontal,
                vertical,
                table: table.into(),
                progress: Progress([None; COEFFICIENTS]),
                nonzero: Vec::new(),
            });
        }
        let largest = |factor: fn(&Component) -> usize| components.iter().map(factor).max();
        Ok(Self {
            progressive,
            width: u16::from_be_bytes([x1, x2]).into(),
            height: u16::from_be_bytes([y1, y2]).into(),
            max_horizontal: largest(|component| component.horizontal).unwrap_or(1),
            max_vertical: largest(|component| component.vertical).unwrap_or(1),
            has_partial_scan: false,
            components,
        })
    }

    pub(super) fn size(&self) -> (u32, u32) {
        (self.width as u32, self.height as u32)
    }

    /// Whether the layout is the one that nearly all encoders write: the first component is not subsampled, no sampling factor
    /// is 3, and a sequential file has a single scan.
    pub(super) fn is_usual(&self) -> bool {
        let first = &self.components[0];
        let mut factors = self
            .components
            .iter()
            .flat_map(|component| [component.horizontal, component.vertical]);
        (first.horizontal, first.vertical) == (self.max_horizontal, self.max_vertical)
            && factors.all(|factor| factor != 3)
            && (self.progressive || !self.has_partial_scan)
    }

    /// Reads a scan header (section B.2.3). `None` if it is invalid or refers to an undefined table.
    pub(super) fn scan_header<'t>(&self, header: &[u8], tables: &'t Tables) -> Option<(Vec<Part<'t>>, Band)> {
        let (&count, rest) = header.split_first()?;
        let (selectors, rest) = rest.split_at_checked(2 * usize::from(count))?;
        let band = self.band(count, *rest.first_chunk()?)?;
        let mut parts: Vec<Part<'_>> = Vec::new();
        for &[id, selector] in selectors.as_chunks().0 {
            let component = self.components.iter().position(|component| component.id == id)?;
            let dc = tables.dc.get(usize::from(selector >> 4))?.as_ref();
            let ac = tables.ac.get(usize::from(selector & 0xF))?.as_ref();
            let steps = tables
                .quantization
                .get(self.components[component].table)?
                .as_ref()?;
            let (needs_dc, needs_ac) = (band.start == 0 && band.high == 0, band.end > 0);
            if parts.iter().any(|part| part.component == component)
                || (needs_dc && dc.is_none())
                || (needs_ac && ac.is_none())
            {
                return None;
            }
            parts.push(Part {
                component,
                dc,
                ac,
                steps,
            });
        }
        (!parts.is_empty()).then_some((parts, band))
    }

    /// Returns the band of a scan of `count` components, from the last bytes of its header. `None` if it is invalid.
    fn band(&self, count: u8, [start, end, bits]: [u8; 3]) -> Option<Band> {
        if !self.progressive {
            // Each field has only one valid value, which decoders do not check.
            return Some(Band {
                start: 0,
                end: COEFFICIENTS - 1,
                high: 0,
                low: 0,
            });
        }
        let band = Band {
            start: start.into(),
            end: end.into(),
            high: bits >> 4,
            low: bits & 0xF,
        };
        let valid = match band.start {
            0 => band.end == 0,
            start => start <= band.end && band.end < COEFFICIENTS && count == 1,
        };
        (valid && band.low <= MAX_BIT).then_some(band)
    }

    /// Records a scan.
    pub(super) fn advance(&mut self, parts: &[Part<'_>], band: Band) -> Result<(), Damage> {
        self.has_partial_scan |= parts.len() < self.components.len();
        for part in parts {
            if self.components[part.component].progress.advance(band).is_none() {
                return corrupt("its scans are in the wrong order");
            }
        }
        Ok(())
    }

    /// Checks that no part of the image is missing.
    pub(super) fn finish(&self) -> Result<(), Damage> {
        if self
            .components
            .iter()
            .all(|component| component.progress.is_complete())
        {
            return Ok(());
        }
        truncated("scans are missing")
    }

    /// Returns the number of blocks of a component in a non-interleaved scan (section A.2.2).
    pub(super) fn blocks(&self, component: &Component) -> usize {
        let blocks = |size: usize, factor: usize, max: usize| (size * factor).div_ceil(max).div_ceil(8);
        blocks(self.width, component.horizontal, self.max_horizontal)
            * blocks(self.height, component.vertical, self.max_vertical)
    }

    /// Returns the number of MCUs in an interleaved scan (section A.2.3).
    pub(super) fn units(&self) -> usize {
        self.width.div_ceil(8 * self.max_horizontal) * self.height.div_ceil(8 * self.max_vertical)
    }
}

impl Progress {
    /// Records a scan. `None` if it cannot follow the previous scans.
    fn advance(&mut self, band: Band) -> Option<()> {
        let before = (band.high > 0).then_some(band.high);
        for bit in &mut self.0[band.start..=band.end] {
            if *bit != before || before.is_some_and(|high| band.low != high - 1) {
                return None;
            }
            *bit = Some(band.low);
        }
        Some(())
    }

    /// Whether the DC coefficient has been coded, and every coefficient that has been started is complete.
    fn is_complete(&self) -> bool {
        self.0[0].is_some() && self.0.iter().flatten().all(|bit| *bit == 0)
    }
}
