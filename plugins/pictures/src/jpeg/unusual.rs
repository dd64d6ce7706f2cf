//! A slower decoder for files that the decoder of the `image` crate decodes incorrectly: those for which
//! [`is_usual`](super::Jpeg::is_usual) returns false.

use image::error::{DecodingError, ImageFormatHint, UnsupportedError, UnsupportedErrorKind};
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageResult};
use jpeg_decoder::{Decoder, PixelFormat};

/// A file whose headers have been read.
pub(crate) struct UnusualJpeg<'a> {
    decoder: Decoder<&'a [u8]>,
    size: (u32, u32),
    color: ColorType,
}

impl<'a> UnusualJpeg<'a> {
    /// Reads the headers of a file.
    ///
    /// # Errors
    /// They are invalid, or the pixels are neither gray nor RGB.
    pub(crate) fn new(file: &'a [u8]) -> ImageResult<Self> {
        let mut decoder = Decoder::new(file);
        decoder.read_info().map_err(failed)?;
        let info = decoder.info();
        let color = match info.map(|info| info.pixel_format) {
            Some(PixelFormat::L8) => ColorType::L8,
            Some(PixelFormat::RGB24) => ColorType::Rgb8,
            other => {
                let kind = UnsupportedErrorKind::GenericFeature(format!("{other:?} in this layout"));
                let format = ImageFormatHint::Exact(ImageFormat::Jpeg);
                return Err(ImageError::Unsupported(UnsupportedError::from_format_and_kind(
                    format, kind,
                )));
            }
        };
        let size = info.map_or((0, 0), |info| (info.width.into(), info.height.into()));
        Ok(Self { decoder, size, color })
    }
}

impl ImageDecoder for UnusualJpeg<'_> {
    fn dimensions(&self) -> (u32, u32) {
        self.size
    }

    fn color_type(&self) -> ColorType {
        self.color
    }

    fn exif_metadata(&mut self) -> ImageResult<Option<Vec<u8>>> {
        Ok(self.decoder.exif_data().map(<[u8]>::to_vec))
    }

    fn read_image(mut self, pixels: &mut [u8]) -> ImageResult<()> {
        let decoded = self.decoder.decode().map_err(failed)?;
        if decoded.len() != pixels.len() {
            return Err(failed("the size of the decoded image differs from the header"));
        }
        pixels.copy_from_slice(&decoded);
        Ok(())
    }

    fn read_image_boxed(self: Box<Self>, pixels: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(pixels)
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ImageError {
    ImageError::Decoding(DecodingError::new(
        ImageFormatHint::Exact(ImageFormat::Jpeg),
        error,
    ))
}
