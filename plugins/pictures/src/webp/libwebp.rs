//! The demuxer and the decoder of libwebp, which Pillow and web browsers also use. Unlike the decoders written in Rust, it notices
//! every read past the end of a partition. Its C interface is used in this module only.

use std::mem;
use std::ptr::{self, NonNull};

use libwebp_sys::{
    VP8StatusCode, WEBP_CSP_MODE, WEBP_DEMUX_ABI_VERSION, WebPData, WebPDecBuffer__bindgen_ty_1 as Output,
    WebPDecode, WebPDecoderConfig, WebPDemuxDelete, WebPDemuxGetFrame, WebPDemuxGetI, WebPDemuxInternal,
    WebPDemuxReleaseIterator, WebPDemuxer, WebPFeatureFlags, WebPFormatFeature, WebPIterator, WebPRGBABuffer,
};

use crate::{Damage, corrupt, truncated};

/// A file whose chunks are valid.
pub(super) struct Demuxer<'a> {
    handle: NonNull<WebPDemuxer>,
    file: &'a [u8],
}

/// The first frame of a file.
pub(super) struct Frame<'a> {
    /// Its chunks.
    data: &'a [u8],
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) has_alpha: bool,
}

impl<'a> Demuxer<'a> {
    /// Opens a file. `None` if its chunks are invalid or incomplete.
    pub(super) fn open(file: &'a [u8]) -> Option<Self> {
        let data = WebPData {
            bytes: file.as_ptr(),
            size: file.len(),
        };
        // SAFETY: `data` has the pointer and the length of `file`, which outlives the demuxer. The third argument may be null.
        let handle =
            unsafe { WebPDemuxInternal(&raw const data, 0, ptr::null_mut(), WEBP_DEMUX_ABI_VERSION as i32) };
        NonNull::new(handle).map(|handle| Self { handle, file })
    }

    /// The width and height of the canvas.
    pub(super) fn size(&self) -> (u32, u32) {
        (
            self.feature(WebPFormatFeature::WEBP_FF_CANVAS_WIDTH),
            self.feature(WebPFormatFeature::WEBP_FF_CANVAS_HEIGHT),
        )
    }

    /// Whether the file declares an animation or has several frames.
    pub(super) fn is_animated(&self) -> bool {
        let flags = self.feature(WebPFormatFeature::WEBP_FF_FORMAT_FLAGS);
        flags & WebPFeatureFlags::ANIMATION_FLAG as u32 != 0
            || self.feature(WebPFormatFeature::WEBP_FF_FRAME_COUNT) > 1
    }

    /// The first frame. `None` if there is none.
    pub(super) fn frame(&self) -> Option<Frame<'a>> {
        // SAFETY: the members are integers, pointers, and enums that have a variant 0.
        let mut frame: WebPIterator = unsafe { mem::zeroed() };
        // SAFETY: the demuxer is open, and the third argument points to a local variable.
        let found = unsafe { WebPDemuxGetFrame(self.handle.as_ptr(), 1, &raw mut frame) };
        if found == 0 {
            return None;
        }
        // The fragment is a part of the file.
        let offset = (frame.fragment.bytes as usize).checked_sub(self.file.as_ptr() as usize)?;
        let data = self.file.get(offset..)?.get(..frame.fragment.size);
        let (width, height) = (u32::try_from(frame.width), u32::try_from(frame.height));
        let has_alpha = frame.has_alpha != 0;
        // SAFETY: the iterator is that of the frame, and is not used afterwards.
        unsafe { WebPDemuxReleaseIterator(&raw mut frame) };
        Some(Frame {
            data: data?,
            width: width.ok()?,
            height: height.ok()?,
            has_alpha,
        })
    }

    fn feature(&self, feature: WebPFormatFeature) -> u32 {
        // SAFETY: the demuxer is open.
        unsafe { WebPDemuxGetI(self.handle.as_ptr(), feature) }
    }
}

impl Drop for Demuxer<'_> {
    fn drop(&mut self) {
        // SAFETY: the demuxer is open, and is not used afterwards.
        unsafe { WebPDemuxDelete(self.handle.as_ptr()) };
    }
}

impl Frame<'_> {
    /// Decodes the pixels: RGBA if there is an alpha channel, otherwise RGB.
    ///
    /// # Errors
    /// The first damage found.
    pub(super) fn decode(&self) -> Result<Vec<u8>, Damage> {
        let (channels, colorspace) = if self.has_alpha {
            (4, WEBP_CSP_MODE::MODE_RGBA)
        } else {
            (3, WEBP_CSP_MODE::MODE_RGB)
        };
        let Ok(mut config) = WebPDecoderConfig::new() else {
            let message = "the version of libwebp does not match";
            return Err(Damage::Unsupported(message.to_owned()));
        };
        // A frame has at most 16383 pixels in each direction.
        let stride = self.width as usize * channels;
        let mut pixels = vec![0; stride * self.height as usize];
        config.output.colorspace = colorspace;
        config.output.is_external_memory = 1;
        config.output.u = Output {
            RGBA: WebPRGBABuffer {
                rgba: pixels.as_mut_ptr(),
                stride: stride as i32,
                size: pixels.len(),
            },
        };
        // SAFETY: the first two arguments are the pointer and the length of `data`. `config.output` has a pointer to `pixels`, their
        // stride and their length, within which libwebp checks that the image fits (`CheckDecBuffer` in `src/dec/buffer_dec.c`).
        let status = unsafe { WebPDecode(self.data.as_ptr(), self.data.len(), &raw mut config) };
        check(status).map(|()| pixels)
    }
}

fn check(status: VP8StatusCode) -> Result<(), Damage> {
    let unsupported = |message: &str| Err(Damage::Unsupported(message.to_owned()));
    match status {
        VP8StatusCode::VP8_STATUS_OK => Ok(()),
        VP8StatusCode::VP8_STATUS_NOT_ENOUGH_DATA | VP8StatusCode::VP8_STATUS_SUSPENDED => {
            truncated("the image data is incomplete")
        }
        VP8StatusCode::VP8_STATUS_UNSUPPORTED_FEATURE => {
            unsupported("the image data uses an unknown feature")
        }
        VP8StatusCode::VP8_STATUS_OUT_OF_MEMORY => unsupported("there is not enough memory to decode it"),
        _ => corrupt("the image data is invalid"),
    }
}
