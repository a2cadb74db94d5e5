// Admission reads other objects inside the write's transaction: over the same connection, so it
// sees exactly what the write will be stored beside. Used by store.cpp.
#pragma once

#include "egw/sdk/state_store.hpp"
#include "tables.hpp"

namespace egw::local {

class TransactionReader : public sdk::Reader {
 public:
  explicit TransactionReader(ObjectTable& objects) : objects_(objects) {}

  sdk::Status get(const sdk::ObjectKind& kind, std::string_view ns, std::string_view name,
                  const sdk::ObjectSink& out) override {
    const std::optional<StoredText> found = objects_.get({kind.group, kind.kind, ns, name});
    if (!found) return sdk::fail(sdk::Code::kNotFound, "there is no such object");
    out.object(found->revision, found->document);
    return sdk::ok();
  }

  sdk::Status list(const sdk::ObjectKind& kind, const sdk::ObjectSink& out) override {
    objects_.list({kind.group, kind.kind, {}, {}},
                  [&](std::uint64_t revision, std::string_view, std::string_view,
                      std::string_view document) { out.object(revision, document); });
    return sdk::ok();
  }

 private:
  ObjectTable& objects_;
};

}  // namespace egw::local
