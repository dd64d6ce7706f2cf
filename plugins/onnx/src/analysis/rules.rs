//! Maps operators to rules. An operator that is not listed is unknown to the analysis.

use std::ops::Range;

use super::elementwise::{broadcast, broadcast_first, cast, identity, range, unary};
use super::gather::{gather, gather_elements, gather_nd, scatter_elements, scatter_nd};
use super::layout::{
    constant_of_shape, depth_and_space, expand, flatten, reshape, shape, size, squeeze, tile, transpose,
    unsqueeze,
};
use super::linear::{
    convolution, convolution_at, einsum, gemm, global_pool, grid_sample, matmul, matmul_at, packed_matmul,
    pool, resize,
};
use super::node::{Op, Outcome};
use super::recurrent::{attention, embed_layer_normalization, recurrent, same_shape};
use super::select::{compress, concat, pad, slice, split};
use super::statistics::{
    arg_extreme, batch_normalization, cumulative, dropout, dynamic_quantize, layer_normalization, listed,
    local_response, lp_normalization, mean_variance_normalization, of_each_item, one_hot, quantize, random,
    reduce, reverse_sequence, rows, skip_layer_normalization, softmax, top_k, triangle,
};

pub(super) type Rule = fn(&Op<'_>) -> Outcome;

/// The rule for an operator in a domain. The domain of the standard operators is empty or `ai.onnx`.
pub(super) fn find(domain: &str, kind: &str) -> Option<Rule> {
    match domain {
        "" | "ai.onnx" => standard(kind),
        "ai.onnx.ml" => classical(kind),
        "com.microsoft" | "com.microsoft.nchwc" | "com.ms.internal.nhwc" => contributed(kind),
        _ => None,
    }
}

/// Whether the analysis supports this operator on inputs that contain the items' indices in the batch. These operators do not
/// compute with the indices.
pub(super) fn keeps_places(kind: &str) -> bool {
    matches!(
        kind,
        "Identity"
            | "Cast"
            | "Unsqueeze"
            | "Squeeze"
            | "Reshape"
            | "Flatten"
            | "Expand"
            | "Tile"
            | "Transpose"
            | "Shape"
            | "Size"
            | "Concat"
            | "GatherND"
    )
}

/// Whether the result of an operator can be far larger than its inputs, because the value of an input determines its size.
pub(super) fn grows(kind: &str) -> bool {
    sizing_inputs(kind).next().is_some()
}

/// The inputs of an operator whose values determine the size of its result.
pub(super) fn sizing_inputs(kind: &str) -> Range<usize> {
    match kind {
        "ConstantOfShape" | "BlackmanWindow" | "HannWindow" | "HammingWindow" => 0..1,
        "Range" => 0..3,
        "Expand" | "Tile" | "Pad" | "OneHot" | "Upsample" | "CenterCropPad" | "Col2Im" | "AffineGrid"
        | "DFT" => 1..2,
        // `roi`, `scales` and `sizes`.
        "Resize" => 1..4,
        "MaxUnpool" => 2..3,
        "MelWeightMatrix" => 0..5,
        _ => 0..0,
    }
}

fn standard(kind: &str) -> Option<Rule> {
    Some(match kind {
        "Abs" | "Acos" | "Acosh" | "Asin" | "Asinh" | "Atan" | "Atanh" | "BitwiseNot" | "Ceil" | "Celu"
        | "Clip" | "Cos" | "Cosh" | "Elu" | "Erf" | "Exp" | "Floor" | "Gelu" | "HardSigmoid"
        | "HardSwish" | "IsInf" | "IsNaN" | "LeakyRelu" | "Log" | "Mish" | "Neg" | "Not" | "Reciprocal"
        | "Relu" | "Round" | "Selu" | "Shrink" | "Sigmoid" | "Sign" | "Sin" | "Sinh" | "Softplus"
        | "Softsign" | "Sqrt" | "Swish" | "Tan" | "Tanh" | "ThresholdedRelu" => unary,
        "Identity" => identity,
        "Cast" => cast,
        "CastLike" => |op| broadcast_nothing(op),
        "Add" | "And" | "BitShift" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "Div" | "Equal"
        | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Max" | "Mean" | "Min" | "Mod" | "Mul"
        | "Or" | "PRelu" | "Pow" | "StringConcat" | "Sub" | "Sum" | "Where" | "Xor" => broadcast,
        "Range" => range,
        "Reshape" => reshape,
        "Flatten" => flatten,
        "Squeeze" => squeeze,
        "Unsqueeze" => unsqueeze,
        "Transpose" => transpose,
        "Expand" => expand,
        "Tile" => tile,
        "ConstantOfShape" => constant_of_shape,
        "Shape" => shape,
        "Size" => size,
        "DepthToSpace" | "SpaceToDepth" => depth_and_space,
        "Gather" => gather,
        "GatherElements" => gather_elements,
        "GatherND" => gather_nd,
        "Scatter" | "ScatterElements" => scatter_elements,
        "ScatterND" => scatter_nd,
        "Concat" => concat,
        "Split" => split,
        "Slice" => slice,
        "Pad" => pad,
        "Compress" => compress,
        "Softmax" | "LogSoftmax" | "Hardmax" => softmax,
        "LpNormalization" => lp_normalization,
        "LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization" => layer_normalization,
        "InstanceNormalization" | "GroupNormalization" => of_each_item,
        "BatchNormalization" => batch_normalization,
        "MeanVarianceNormalization" => mean_variance_normalization,
        "LRN" => local_response,
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean"
        | "ReduceMin" | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" => reduce,
        "ArgMax" | "ArgMin" => arg_extreme,
        "TopK" => top_k,
        "CumSum" | "CumProd" => cumulative,
        "OneHot" => one_hot,
        "Trilu" => triangle,
        "ReverseSequence" => reverse_sequence,
        "NonZero" | "NonMaxSuppression" | "Unique" => listed,
        "Bernoulli" | "Multinomial" | "RandomNormal" | "RandomNormalLike" | "RandomUniform"
        | "RandomUniformLike" => random,
        "Dropout" => dropout,
        "QuantizeLinear" | "DequantizeLinear" => quantize,
        "DynamicQuantizeLinear" => dynamic_quantize,
        "MatMul" | "MatMulInteger" => matmul,
        "QLinearMatMul" => |op| matmul_at(op, 0, 3),
        "Gemm" => gemm,
        "Einsum" => einsum,
        "Conv" | "ConvTranspose" | "ConvInteger" => convolution,
        "QLinearConv" => |op| convolution_at(op, 0, 3),
        "MaxPool" | "AveragePool" | "LpPool" => pool,
        "GlobalMaxPool" | "GlobalAveragePool" | "GlobalLpPool" => global_pool,
        "Resize" | "Upsample" => resize,
        "GridSample" => grid_sample,
        "LSTM" | "GRU" | "RNN" => recurrent,
        "Attention" => attention,
        _ => return None,
    })
}

/// `CastLike`: only the element type of the second input matters.
fn broadcast_nothing(op: &Op<'_>) -> Outcome {
    identity(op)
}

/// Operators of classical machine-learning models.
fn classical(kind: &str) -> Option<Rule> {
    Some(match kind {
        "LabelEncoder" | "CategoryMapper" => unary,
        "Binarizer"
        | "FeatureVectorizer"
        | "Imputer"
        | "LinearClassifier"
        | "LinearRegressor"
        | "Normalizer"
        | "Scaler"
        | "SVMClassifier"
        | "SVMRegressor"
        | "TreeEnsemble"
        | "TreeEnsembleClassifier"
        | "TreeEnsembleRegressor"
        | "ZipMap" => rows,
        "OneHotEncoder" => one_hot,
        "ArrayFeatureExtractor" => features,
        _ => return None,
    })
}

/// `ArrayFeatureExtractor`: selects elements along the last dimension.
fn features(op: &Op<'_>) -> Outcome {
    op.setting(1)?;
    if op
        .batch(0)
        .is_some_and(|batch| op.dims(0).is_ok_and(|dims| batch.axis + 1 == dims.len()))
    {
        return Err(op.mixed("selects items by their position in the batch"));
    }
    let mut dims = op.dims(0)?.to_vec();
    if let Some(last) = dims.last_mut() {
        *last = op.own_dimension(0);
    }
    Ok(vec![super::value::Value::new(dims, op.batch(0).cloned())])
}

/// ONNX Runtime's contrib operators, as written by exporters and by ONNX Runtime's own tools.
fn contributed(kind: &str) -> Option<Rule> {
    Some(match kind {
        "Gelu" | "QuickGelu" | "QLinearLeakyRelu" | "QLinearSigmoid" => unary,
        "FastGelu" | "BiasGelu" => broadcast,
        "BiasAdd" | "BiasSplitGelu" => return None,
        "QLinearAdd" | "QLinearMul" => |op| quantized_sum(op),
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => skip_layer_normalization,
        "SimplifiedLayerNormalization" => layer_normalization,
        "GroupNorm" => of_each_item,
        "FusedMatMul" | "TransposeMatMul" | "MatMulIntegerToFloat" => matmul,
        "FusedGemm" => gemm,
        "DynamicQuantizeMatMul" | "DynamicQuantizeLSTM" => dynamic,
        "MatMulNBits" | "MatMulBnb4" | "MatMulFpQ4" => packed_matmul,
        "FusedConv" => convolution,
        "QuantizeLinear" | "DequantizeLinear" => quantize,
        "Attention" | "MultiHeadAttention" | "PackedAttention" | "QAttention" => attention,
        "RotaryEmbedding" => same_shape,
        "EmbedLayerNormalization" => embed_layer_normalization,
        "Inverse" | "Trilu" => triangle,
        "Unique" => listed,
        _ => return None,
    })
}

/// `QLinearAdd` and `QLinearMul`: each operand is followed by its scale and zero point.
fn quantized_sum(op: &Op<'_>) -> Outcome {
    for index in [1, 2, 4, 5, 6, 7] {
        op.setting(index)?;
    }
    let factors = Op {
        node: op.node,
        opset: op.opset,
        inputs: vec![op.get(0).cloned(), op.get(3).cloned()],
        symbols: op.symbols,
        sizing: op.sizing,
    };
    broadcast_first(&factors, 2)
}

/// Operators that first quantize their input with a single scale for the whole tensor.
fn dynamic(op: &Op<'_>) -> Outcome {
    dynamic_quantize(op)?;
    Err(op.unknown("has outputs of unknown shape"))
}
