// Types, shapes and ValueInfoProto.

#include "onnx/importer.h"

namespace onnx2nn::onnx {

ir::Dim Importer::dim_symbol(std::string_view name) {
  if (name.empty()) return ir::Dim::unknown();
  const auto it = symbols_.find(std::string(name));
  if (it != symbols_.end()) return ir::Dim::symbol(it->second);
  const std::string id = model_->info.add_symbol(name);
  symbols_[std::string(name)] = id;
  return ir::Dim::symbol(id);
}

ir::Shape Importer::read_shape(Reader m) {
  ir::Dims dims;
  while (m.next()) {
    if (m.field() != 1) {
      m.skip();
      continue;
    }
    Reader d = m.message("TensorShapeProto.Dimension");
    ir::Dim dim;
    while (d.next()) {
      if (d.field() == 1) {
        const std::int64_t v = d.int64();
        // Exporters write -1, and more often 0, for a size that they do not know. What is right
        // for any size is right for an empty tensor too.
        dim = v > 0 ? ir::Dim(v) : ir::Dim::unknown();
        open_as_number_ = open_as_number_ || v <= 0;
      } else if (d.field() == 2) {
        dim = dim_symbol(d.text());
      } else {
        d.skip();
      }
    }
    dims.push_back(dim);
  }
  return ir::Shape(std::move(dims));
}

DType Importer::read_dtype(Reader& m) {
  const std::int32_t v = m.int32();
  return v > 0 && v < ir::kDTypeCount ? static_cast<DType>(v) : DType::Undefined;
}

Type Importer::read_type(Reader m, int depth) {
  if (depth > kMaxDepth) m.fail("types are nested too deeply");
  Type type;
  while (m.next()) {
    const std::uint32_t field = m.field();
    if (field != 1 && field != 4 && field != 5 && field != 8 && field != 9) {
      m.skip();
      continue;
    }
    Reader t = m.message("TypeProto");
    Type element;
    while (t.next()) {
      if ((field == 1 || field == 8 || field == 5) && t.field() == 1) {
        type.dtype = read_dtype(t);
      } else if ((field == 1 || field == 8) && t.field() == 2) {
        type.shape = read_shape(t.message("TensorShapeProto"));
      } else if (((field == 4 || field == 9) && t.field() == 1) ||
                 (field == 5 && t.field() == 2)) {
        element = read_type(t.message("TypeProto"), depth + 1);
      } else {
        t.skip();
      }
    }
    type.kind = field == 1   ? Type::Kind::Tensor
                : field == 8 ? Type::Kind::SparseTensor
                : field == 4 ? Type::Kind::Sequence
                : field == 9 ? Type::Kind::Optional
                             : Type::Kind::Map;
    if (field == 4 || field == 5 || field == 9)
      type.element = std::make_shared<const Type>(std::move(element));
  }
  return type;
}

Importer::NamedType Importer::read_value_info(Reader m) {
  NamedType out;
  while (m.next()) {
    switch (m.field()) {
      case 1:
        out.name = m.text();
        break;
      case 2: {
        Reader again = m;
        open_as_number_ = false;
        out.type = read_type(m.message("TypeProto"), 0);
        out.info.type_proto = again.string();
        out.info.open_as_number = open_as_number_;
        break;
      }
      case 3:
        out.info.doc_string = m.string();
        break;
      case 4:
        out.info.metadata.push_back(read_entry(m.message("StringStringEntryProto")));
        break;
      default:
        m.skip();
    }
  }
  return out;
}

Type Importer::without_symbols(Type type) {
  for (ir::Dim& d : type.shape.dims())
    if (!d.is_const()) d = ir::Dim::unknown();
  return type;
}

}  // namespace onnx2nn::onnx
