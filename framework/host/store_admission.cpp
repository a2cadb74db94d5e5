// See store_admission.hpp.
#include "egw/host/store_admission.hpp"

#include <stdexcept>
#include <string>

#include "egw/host/convert.hpp"
#include "egw/host/text.hpp"

namespace egw::host {
namespace {

// Takes the objects of the store's reader one by one.
struct ReadSink {
  std::function<void(std::uint64_t revision, std::string_view text)> take;
  std::string trouble;

  static void object(void* ctx, std::uint64_t revision, egw_str text) noexcept {
    auto* self = static_cast<ReadSink*>(ctx);
    try {
      if (self->trouble.empty()) self->take(revision, raw_view(text));
    } catch (const std::exception& e) {
      self->trouble = e.what();
    }
  }
  static void warning(void*, egw_str) noexcept {}
  [[nodiscard]] egw_object_sink sink() { return {this, object, warning}; }
};

nlohmann::json document_of(std::string_view text) {
  auto document = parse_json(text);
  if (!document || !document->is_object()) {
    throw std::runtime_error("it gave an object that is no readable JSON");
  }
  return std::move(*document);
}

void read_each(const egw_reader* reader, model::Kind kind,
               const std::function<void(const nlohmann::json&)>& visit) {
  ReadSink out{[&visit](std::uint64_t, std::string_view text) { visit(document_of(text)); }, {}};
  const egw_object_sink sink = out.sink();
  const egw_object_kind abi_kind = to_abi(kind);
  if (reader->list(reader->ctx, &abi_kind, &sink) != EGW_OK || !out.trouble.empty()) {
    throw std::runtime_error("the store could not list " + std::string(model::info(kind).plural) +
                             (out.trouble.empty() ? "" : ": " + out.trouble));
  }
}

std::shared_ptr<const nlohmann::json> read_one(const egw_reader* reader, DocumentMemo& memo,
                                               model::Kind kind, const model::Key& key) {
  std::shared_ptr<const nlohmann::json> found;
  ReadSink out{[&](std::uint64_t revision, std::string_view text) {
                 found = memo.get(kind, key, revision, text, document_of);
               },
               {}};
  const egw_object_sink sink = out.sink();
  const egw_object_kind abi_kind = to_abi(kind);
  const std::int32_t status =
      reader->get(reader->ctx, &abi_kind, to_abi(key.ns), to_abi(key.name), &sink);
  if (status == EGW_NOT_FOUND) return nullptr;
  if (status != EGW_OK || found == nullptr) {
    throw std::runtime_error("the store could not read " + key.to_string() +
                             (out.trouble.empty() ? "" : ": " + out.trouble));
  }
  return found;
}

AdmitRequest make_request(std::uint32_t op, model::Kind kind, egw_str old_json, egw_str new_json,
                          const egw_reader* reader, DocumentMemo& memo) {
  const auto document = [](egw_str text, const char* which) {
    if (text.len == 0) return nlohmann::json();
    auto parsed = parse_json(raw_view(text));
    if (!parsed)
      throw std::runtime_error(std::string("the ") + which + " object is no readable JSON");
    return std::move(*parsed);
  };
  AdmitRequest request{};
  request.op = op == EGW_WRITE_CREATE   ? AdmitRequest::Op::kCreate
               : op == EGW_WRITE_DELETE ? AdmitRequest::Op::kDelete
                                        : AdmitRequest::Op::kUpdate;
  request.kind = kind;
  request.old_object = document(old_json, "stored");
  request.new_object = document(new_json, "new");
  request.get = [reader, &memo](model::Kind k, const model::Key& key) {
    return read_one(reader, memo, k, key);
  };
  request.each = [reader](model::Kind k, const std::function<void(const nlohmann::json&)>& visit) {
    read_each(reader, k, visit);
  };
  return request;
}

}  // namespace

std::int32_t StoreAdmission::on_admit(void* ctx, std::uint32_t op, const egw_object_kind* abi_kind,
                                      egw_str old_json, egw_str new_json, const egw_reader* reader,
                                      const egw_admission_sink* out) noexcept {
  try {
    auto* self = static_cast<StoreAdmission*>(ctx);
    const auto admit = self->admit();
    if (!admit) throw std::runtime_error("egw has closed this store");
    const auto kind = to_model(abi_kind);
    if (!kind) {
      out->denial(out->ctx, to_abi("egw does not know this kind of object"));
      return EGW_DENIED;
    }
    const AdmitReply reply =
        (*admit)(make_request(op, *kind, old_json, new_json, reader, self->memo_));
    for (const std::string& warning : reply.warnings) out->warning(out->ctx, to_abi(warning));
    if (!reply.admitted) {
      for (const std::string& denial : reply.denials) out->denial(out->ctx, to_abi(denial));
      if (reply.denials.empty()) out->denial(out->ctx, to_abi("refused without a reason"));
      return EGW_DENIED;
    }
    out->object(out->ctx, to_abi(dump_json(reply.object)));
    return EGW_OK;
  } catch (const std::exception& e) {
    out->denial(out->ctx, to_abi(std::string_view(e.what())));
    return EGW_DENIED;
  } catch (...) {
    out->denial(out->ctx, to_abi("admission failed"));
    return EGW_DENIED;
  }
}

}  // namespace egw::host
