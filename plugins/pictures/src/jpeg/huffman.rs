//! Huffman codes, and reading the bits of entropy-coded segments (sections C.2 and F.2.2).

/// A Huffman table in a form for fast decoding.
pub(super) struct Code {
    /// Indexed by the next 8 bits: length and symbol of the code word at their start, if it has at most 8 bits.
    short: [Option<(u8, u8)>; 256],
    /// Indexed by length: the smallest number greater than all code words of this length, aligned to 16 bits.
    limits: [u32; 17],
    /// Indexed by length: the difference between the index of a symbol and its code word.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Code {
    /// Builds a code from the number of code words of each length from 1 to 16, and their symbols. `None` if there are too many
    /// code words.
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
                // The code word that consists only of ones is reserved.
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

    /// Finds the code word at the start of `bits`. Returns its length and symbol.
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

/// Reason why no more bits can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The entropy-coded segment ends.
    End,
    /// The bits are invalid.
    Invalid,
}

/// The bits of an entropy-coded segment, which ends at the next marker.
pub(super) struct Bits<'a> {
    file: &'a [u8],
    /// Position of the next byte that is not in the window.
    position: usize,
    /// The next bits, starting at the most significant one, followed by zeros.
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
        // Two shifts, because a shift by 64 overflows.
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

    /// Ends the segment by skipping the padding bits of the last byte. Returns the position of the marker, or `None` if whole
    /// bytes remain.
    pub(super) fn end(&mut self) -> Option<usize> {
        self.fill();
        (self.count < 8).then_some(self.position)
    }

    /// Returns the code of the marker that ends the segment, and the position after it. `None` at the end of the file.
    pub(super) fn next_marker(&self) -> Option<(u8, usize)> {
        let mut position = self.position;
        while self.file.get(position) == Some(&0xFF) {
            position += 1;
        }
        self.file.get(position).map(|code| (*code, position + 1))
    }

    /// Starts a new segment at `position`.
    pub(super) fn restarted(&self, position: usize) -> Self {
        Self::new(self.file, position)
    }

    /// Returns the position of the next byte.
    pub(super) fn position(&self) -> usize {
        self.position
    }
}
