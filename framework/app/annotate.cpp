// Annotations as requests to the leader (annotate.hpp).
#include "egw/app/annotate.hpp"

namespace egw::app {

Result<bool> annotate(Session& session, model::Kind kind, const model::Key& key,
                      std::string_view name, const std::string& value, bool replace) {
  constexpr int kAttempts = 8;
  const std::string wanted(name);
  for (int attempt = 1;; ++attempt) {
    auto stored = session.get(kind, key);
    if (!stored) return tl::unexpected(std::move(stored.error()));
    nlohmann::json& metadata = stored->document["metadata"];
    const bool there = metadata.contains("annotations") && metadata["annotations"].contains(wanted);
    const bool asked = there && metadata["annotations"][wanted] != "false";
    if (value.empty() ? !there : asked && !replace) return false;
    if (value.empty()) {
      metadata["annotations"].erase(wanted);
    } else {
      metadata["annotations"][wanted] = value;
    }
    host::WriteRequest request{host::WriteRequest::Op::kUpdate, kind, key,
                               std::move(stored->document)};
    request.expected_revision = stored->revision;
    auto written = session.write(std::move(request));
    if (written) return true;
    if (written.error().code != Errc::kConflict || attempt == kAttempts) {
      return tl::unexpected(std::move(written.error()));
    }
  }
}

}  // namespace egw::app
