//! Scans: the decoding of their coefficients (sections F.2 and G.2).

use super::frame::{Band, COEFFICIENTS, Frame, MAX_COMPONENTS, Part};
use super::huffman::{Bits, Code, Stop};
use super::{Damage, Steps, corrupt, marker, truncated};

/// Maximum number of bits of a difference of DC coefficients, for 8-bit samples.
const MAX_DC_BITS: u8 = 11;

/// Maximum number of bits of an AC coefficient, for 8-bit samples.
const MAX_AC_BITS: u8 = 10;

/// Maximum absolute value of a coefficient before it is rounded to a quantization step. 8-bit samples result in at most 1024;
/// encoders that reduce ringing let samples overshoot by up to 31 of 128.
const MAX_COEFFICIENT: i32 = 1280;

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
