// Reads of the API in the host's words: one object, or a collection in pages. Used by store.cpp for
// the host's own reads, and by admission (store.cpp, webhook.cpp), which reads other objects.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "api.hpp"
#include "egw/sdk/state_store.hpp"
#include "resource.hpp"

namespace egw::kube {

// Objects of a page of a list.
inline constexpr std::string_view kPageSize = "500";

// "EgressPolicy default/web"
[[nodiscard]] std::string text_of(const sdk::ObjectKind& kind, std::string_view ns,
                                  std::string_view name);

// Gives the object as the host knows it; answers its revision.
std::uint64_t deliver(const Resource& resource, nlohmann::json object, const sdk::ObjectSink& out);

sdk::Status get_into(Api& api, const sdk::ObjectKind& kind, std::string_view ns,
                     std::string_view name, std::chrono::milliseconds deadline,
                     const sdk::ObjectSink& out, Stop* stop = nullptr);
// deadline: of all pages.
sdk::Status list_into(Api& api, const sdk::Query& query, std::chrono::milliseconds deadline,
                      const sdk::ObjectSink& out, Stop* stop = nullptr);

// Reads other objects for admission, always from the API: what has just been made is there.
class ApiReader : public sdk::Reader {
 public:
  ApiReader(Api& api, std::chrono::steady_clock::time_point until, Stop* stop = nullptr)
      : api_(api), until_(until), stop_(stop) {}
  sdk::Status get(const sdk::ObjectKind& kind, std::string_view ns, std::string_view name,
                  const sdk::ObjectSink& out) override;
  sdk::Status list(const sdk::ObjectKind& kind, const sdk::ObjectSink& out) override;
  // Why something could not be read that may be there; ok(): all has been read.
  [[nodiscard]] const sdk::Status& trouble() const { return trouble_; }

 private:
  sdk::Status note(sdk::Status status);

  Api& api_;
  const std::chrono::steady_clock::time_point until_;
  Stop* stop_;
  sdk::Status trouble_;
};
// What the writer is told of that.
[[nodiscard]] std::string cannot_judge(const sdk::Status& trouble);

}  // namespace egw::kube
