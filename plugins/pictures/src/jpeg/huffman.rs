//! Huffman codes and the bits of entropy-coded segments (sections C.2 and F.2.2).

/// A Huffman code of one destination.
pub(super) struct Code {
    /// By the next 8 bits: length and symbol of the code word that they start with, if it is that short.
    short: [Option<(u8, u8)>; 256],
    /// By length: the first number that is above the code words of this length, aligned to 16 bits.
    limits: [u32; 17],
    /// By length: what to add to a code word to get the index of its symbol.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Code {
    /// Builds a code from the number of code words of each length from 1 to 16, and their symbols. `None` if there are more code words
    /// than fit.
    pub(super) fn new(lengths: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut code = Self {
            short: [None; 256],
            limits: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut word, mut index) = (0_u32, 0_usize);
        for (length, count) in (1_u8..).zip(lengths) {
            code.offsets[usize::from(length)] = index as i32 - word as i32;
            for symbol in symbols.get(index..index + usize::from(*count))? {
                // The code word of ones alone is not used.
                if word + 1 >= 1 << length {
                    return None;
                }
                if length <= 8 {
                    let first = (word << (8 - length)) as usize;
                    code.short[first..][..1 << (8 - length)].fill(Some((length, *symbol)));
                }
                word += 1;
            }
            index += usize::from(*count);
            code.limits[usize::from(length)] = word << (16 - length);
            word <<= 1;
        }
        Some(code)
    }

    /// Length and symbol of the code word at the start of 16 bits.
    fn find(&self, bits: u16) -> Option<(u8, u8)> {
        if let Some(found) = self.short[usize::from(bits >> 8)] {
            return Some(found);
        }
        let length = (9..=16_u8).find(|length| u32::from(bits) < self.limits[usize::from(*length)])?;
        let word = i32::from(bits >> (16 - length));
        let index = usize::try_from(word + self.offsets[usize::from(length)]).ok()?;
        Some((length, *self.symbols.get(index)?))
    }
}

/// Why no more bits can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The entropy-coded segment ends.
    End,
    /// The bits mean nothing valid.
    Invalid,
}

/// The bits of an entropy-coded segment, which ends at the next marker.
pub(super) struct Bits<'a> {
    file: &'a [u8],
    /// Of the next byte that is not in the window.
    position: usize,
    /// The next bits, from the highest one on; 0 after the last one.
    window: u64,
    /// Number of bits in the window.
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(file: &'a [u8], position: usize) -> Self {
        Self {
            file,
            position,
            window: 0,
            count: 0,
        }
    }

    /// Reads a code word and returns its symbol.
    pub(super) fn symbol(&mut self, code: &Code) -> Result<u8, Stop> {
        if self.count < 16 {
            self.fill();
        }
        match code.find((self.window >> 48) as u16) {
            Some((length, symbol)) => {
                self.take(length.into())?;
                Ok(symbol)
            }
            None if self.count < 16 => Err(Stop::End),
            None => Err(Stop::Invalid),
        }
    }

    /// Reads a number of up to 16 bits.
    pub(super) fn number(&mut self, length: u32) -> Result<u32, Stop> {
        if self.count < length {
            self.fill();
        }
        self.take(length)
    }

    fn take(&mut self, length: u32) -> Result<u32, Stop> {
        self.count = self.count.checked_sub(length).ok_or(Stop::End)?;
        // In two steps, since a shift by 64 is not possible.
        let taken = (self.window >> 1 >> (63 - length)) as u32;
        self.window <<= length;
        Ok(taken)
    }

    /// Fills the window up to the next marker.
    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match self.file.get(self.position..) {
                None | Some([]) => return,
                Some([0xFF, 0, ..]) => {
                    self.position += 2;
                    0xFF
                }
                Some([0xFF, ..]) => return,
                Some([byte, ..]) => {
                    self.position += 1;
                    *byte
                }
            };
            self.window |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// Ends the segment: skips the bits that pad the last byte. Returns `None` if whole bytes are left, otherwise the position of the
    /// marker.
    pub(super) fn end(&mut self) -> Option<usize> {
        self.fill();
        (self.count < 8).then_some(self.position)
    }

    /// The code of the marker that ends the segment, and the position after it; `None` if the file ends.
    pub(super) fn next_marker(&self) -> Option<(u8, usize)> {
        let mut position = self.position;
        while self.file.get(position) == Some(&0xFF) {
            position += 1;
        }
        self.file.get(position).map(|code| (*code, position + 1))
    }

    /// The bits from another position on.
    pub(super) fn restarted(&self, position: usize) -> Self {
        Self::new(self.file, position)
    }

    /// The position of the next byte.
    pub(super) fn position(&self) -> usize {
        self.position
    }
}
