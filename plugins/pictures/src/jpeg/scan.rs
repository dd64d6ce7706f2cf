//! Frames and scans, and the decoding of coefficients (sections A.2, F.2 and G.2).

use super::huffman::{Bits, Code, Stop};
use super::{Damage, Steps, Tables, corrupt, marker, truncated};

/// Number of coefficients of a block.
pub(super) const COEFFICIENTS: usize = 64;

/// Maximum bit position of a progressive scan.
const MAX_BIT: u8 = 13;

/// Maximum number of bits of a difference of DC coefficients, for 8-bit samples.
const MAX_DC_BITS: u8 = 11;

/// Maximum number of bits of an AC coefficient, for 8-bit samples.
const MAX_AC_BITS: u8 = 10;

/// Maximum number of components that the decoder supports.
const MAX_COMPONENTS: usize = 4;

/// Maximum absolute value of a coefficient before it is rounded to a quantization step. 8-bit samples result in at most 1024;
/// encoders that reduce ringing let samples overshoot by up to 31 of 128.
const MAX_COEFFICIENT: i32 = 1280;

/// The frame, as described by its header.
pub(super) struct Frame {
    progressive: bool,
    width: usize,
    height: usize,
    /// Maximum horizontal sampling factor of all components.
    max_horizontal: usize,
    /// Maximum vertical sampling factor of all components.
    max_vertical: usize,
    /// Whether a scan did not include all components.
    has_partial_scan: bool,
    components: Vec<Component>,
}

struct Component {
    id: u8,
    horizontal: usize,
    vertical: usize,
    /// Destination of the quantization table.
    table: usize,
    progress: Progress,
    /// Bit sets of the nonzero AC coefficients of each block, in the order of a non-interleaved scan. Empty before the first AC
    /// scan of a progressive frame, and always empty in a sequential frame.
    nonzero: Vec<u64>,
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
    component: usize,
    dc: Option<&'t Code>,
    ac: Option<&'t Code>,
    steps: &'t Steps,
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
    fn blocks(&self, component: &Component) -> usize {
        let blocks = |size: usize, factor: usize, max: usize| (size * factor).div_ceil(max).div_ceil(8);
        blocks(self.width, component.horizontal, self.max_horizontal)
            * blocks(self.height, component.vertical, self.max_vertical)
    }

    /// Returns the number of MCUs in an interleaved scan (section A.2.3).
    fn units(&self) -> usize {
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

/// A scan whose header has been read.
pub(super) struct Scan<'a> {
    frame: &'a mut Frame,
    parts: &'a [Part<'a>],
    band: Band,
    bits: Bits<'a>,
    /// DC coefficient of the previous block of each component.
    previous: [i32; MAX_COMPONENTS],
    /// Number of following blocks without further coefficients (`EOBRUN`).
    to_skip: u32,
}

impl<'a> Scan<'a> {
    pub(super) fn new(frame: &'a mut Frame, parts: &'a [Part<'a>], band: Band, bits: Bits<'a>) -> Self {
        Self {
            frame,
            parts,
            band,
            bits,
            previous: [0; MAX_COMPONENTS],
            to_skip: 0,
        }
    }

    /// Reads the entropy-coded segments. Returns the position of the marker after them.
    pub(super) fn read(mut self, restart_interval: usize) -> Result<usize, Damage> {
        let units = match self.parts {
            [only] => {
                let blocks = self.frame.blocks(&self.frame.components[only.component]);
                if self.frame.progressive && self.band.start > 0 {
                    self.frame.components[only.component].nonzero.resize(blocks, 0);
                }
                blocks
            }
            _ => self.frame.units(),
        };
        let mut restarts = 0_u8;
        for unit in 0..units {
            if restart_interval > 0 && unit > 0 && unit % restart_interval == 0 {
                self.restart(restarts)?;
                restarts = (restarts + 1) % 8;
            }
            self.unit(unit).map_err(|stop| self.damage(stop))?;
        }
        self.end()
    }

    fn damage(&self, stop: Stop) -> Damage {
        let position = self.bits.position();
        match (stop, self.bits.next_marker()) {
            (Stop::Invalid, _) => Damage::Corrupt(format!("invalid image data before offset {position}")),
            (Stop::End, None) => Damage::Truncated("it ends within the image data".to_owned()),
            (Stop::End, Some((marker::EOI, _))) => {
                Damage::Truncated(format!("the image data ends early, at offset {position}"))
            }
            (Stop::End, Some(_)) => {
                Damage::Corrupt(format!("the image data is interrupted at offset {position}"))
            }
        }
    }

    /// Ends an entropy-coded segment after all of its blocks have been read.
    fn end(&mut self) -> Result<usize, Damage> {
        match self.bits.end() {
            Some(position) if self.to_skip == 0 => Ok(position),
            _ => corrupt(format!(
                "superfluous image data before offset {}",
                self.bits.position()
            )),
        }
    }

    /// Reads the restart marker with this number.
    fn restart(&mut self, number: u8) -> Result<(), Damage> {
        let position = self.end()?;
        match self.bits.next_marker() {
            Some((code, next)) if code == marker::RST0 + number => {
                self.bits = self.bits.restarted(next);
                self.previous = [0; MAX_COMPONENTS];
                Ok(())
            }
            Some((code, _)) if code == marker::EOI => {
                truncated(format!("the image data ends early, at offset {position}"))
            }
            None => truncated("it ends within the image data"),
            Some(_) => corrupt(format!("expected restart marker {number} at offset {position}")),
        }
    }

    /// Reads an MCU. In a non-interleaved scan, it is a single block.
    fn unit(&mut self, unit: usize) -> Result<(), Stop> {
        if let [only] = self.parts {
            return self.block(only, unit);
        }
        for part in self.parts {
            let component = &self.frame.components[part.component];
            for _ in 0..component.horizontal * component.vertical {
                self.block(part, 0)?;
            }
        }
        Ok(())
    }

    /// Reads a block. `index` is the index of the block in a non-interleaved scan.
    fn block(&mut self, part: &Part<'_>, index: usize) -> Result<(), Stop> {
        let Self { band, bits, .. } = self;
        match part.dc {
            Some(code) if band.start == 0 && band.high == 0 => {
                let difference = dc_difference(bits, code)?;
                let value = self.previous[part.component] + difference;
                check_range(value, band.low, part.steps[0])?;
                self.previous[part.component] = value;
            }
            _ if band.start == 0 => {
                bits.number(1)?;
            }
            _ => {}
        }
        let Some(code) = part.ac.filter(|_| band.end > 0) else {
            return Ok(());
        };
        if !self.frame.progressive {
            return sequential(bits, code, part.steps);
        }
        let mut block = Block {
            bits,
            band: *band,
            steps: part.steps,
            nonzero: &mut self.frame.components[part.component].nonzero[index],
            to_skip: &mut self.to_skip,
        };
        match band.high {
            0 => block.first(code),
            _ => block.refine(code),
        }
    }
}

/// Reads a DC difference (section F.2.2.1).
fn dc_difference(bits: &mut Bits<'_>, code: &Code) -> Result<i32, Stop> {
    let length = bits.symbol(code)?;
    if length > MAX_DC_BITS {
        return Err(Stop::Invalid);
    }
    value(bits, length)
}

/// Reads a value of `length` bits. Its first bit is 0 if it is negative (`EXTEND` in section F.2.2.1).
fn value(bits: &mut Bits<'_>, length: u8) -> Result<i32, Stop> {
    let number = bits.number(length.into())? as i32;
    let negative = length > 0 && number >> (length - 1) == 0;
    Ok(if negative {
        number - (1 << length) + 1
    } else {
        number
    })
}

/// Checks that a coefficient is in the range of 8-bit samples.
fn check_range(value: i32, low: u8, step: u16) -> Result<(), Stop> {
    let step = i64::from(step.max(1)) << low;
    if i64::from(value.abs()) * step > i64::from(MAX_COEFFICIENT) + step {
        return Err(Stop::Invalid);
    }
    Ok(())
}

/// Reads the AC coefficients of a block of a sequential frame (section F.2.2.2).
fn sequential(bits: &mut Bits<'_>, code: &Code, steps: &Steps) -> Result<(), Stop> {
    let mut next = 1;
    while next < COEFFICIENTS {
        let symbol = bits.symbol(code)?;
        let (zeros, length) = (usize::from(symbol >> 4), symbol & 0xF);
        match (zeros, length) {
            (15, 0) => next += 16,
            (_, 0) => return Ok(()),
            _ => {
                next += zeros;
                ac_coefficient(bits, length, 0, steps.get(next))?;
                next += 1;
            }
        }
    }
    // A run of zeros must not exceed the block.
    if next > COEFFICIENTS {
        Err(Stop::Invalid)
    } else {
        Ok(())
    }
}

/// Reads an AC coefficient. `step` is `None` if the coefficient is outside the block.
fn ac_coefficient(bits: &mut Bits<'_>, length: u8, low: u8, step: Option<&u16>) -> Result<(), Stop> {
    match step {
        Some(step) if length <= MAX_AC_BITS => check_range(value(bits, length)?, low, *step),
        _ => Err(Stop::Invalid),
    }
}

/// A block in an AC scan of a progressive frame.
struct Block<'s, 'a> {
    bits: &'s mut Bits<'a>,
    band: Band,
    steps: &'s Steps,
    nonzero: &'s mut u64,
    to_skip: &'s mut u32,
}

impl Block<'_, '_> {
    /// Reads the first scan of a band (section G.1.2.2).
    fn first(&mut self, code: &Code) -> Result<(), Stop> {
        if *self.to_skip > 0 {
            *self.to_skip -= 1;
            return Ok(());
        }
        let mut next = self.band.start;
        while next <= self.band.end {
            let symbol = self.bits.symbol(code)?;
            let (zeros, length) = (symbol >> 4, symbol & 0xF);
            match (zeros, length) {
                (15, 0) => next += 16,
                (_, 0) => {
                    *self.to_skip = self.run(zeros)? - 1;
                    return Ok(());
                }
                _ => {
                    next += usize::from(zeros);
                    let steps = &self.steps[..=self.band.end];
                    ac_coefficient(self.bits, length, self.band.low, steps.get(next))?;
                    *self.nonzero |= 1 << next;
                    next += 1;
                }
            }
        }
        Ok(())
    }

    /// Reads a refinement scan (section G.1.2.3).
    fn refine(&mut self, code: &Code) -> Result<(), Stop> {
        let mut next = self.band.start;
        if *self.to_skip == 0 {
            while next <= self.band.end {
                let symbol = self.bits.symbol(code)?;
                let (zeros, length) = (symbol >> 4, symbol & 0xF);
                match length {
                    0 if zeros < 15 => {
                        *self.to_skip = self.run(zeros)?;
                        break;
                    }
                    0 => {}
                    // Skip the sign.
                    1 => {
                        self.bits.number(1)?;
                    }
                    _ => return Err(Stop::Invalid),
                }
                next = self.correct(next, zeros)?;
                if length == 1 {
                    if next > self.band.end {
                        return Err(Stop::Invalid);
                    }
                    *self.nonzero |= 1 << next;
                }
                next += 1;
            }
        }
        if *self.to_skip > 0 {
            self.correct(next, u8::MAX)?;
            *self.to_skip -= 1;
        }
        Ok(())
    }

    /// Reads a correction bit for every nonzero coefficient, starting at `next` and skipping `zeros` zero coefficients. Returns
    /// the index of the next zero coefficient.
    fn correct(&mut self, mut next: usize, mut zeros: u8) -> Result<usize, Stop> {
        while next <= self.band.end {
            if *self.nonzero >> next & 1 == 1 {
                self.bits.number(1)?;
            } else if zeros == 0 {
                break;
            } else {
                zeros -= 1;
            }
            next += 1;
        }
        Ok(next)
    }

    /// Reads the number of blocks, including this one, without further coefficients.
    fn run(&mut self, length: u8) -> Result<u32, Stop> {
        Ok((1 << length) + self.bits.number(length.into())?)
    }
}
