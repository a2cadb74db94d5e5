// DocumentMemo: what admission's questions read again and again, parsed once: every new policy asks
// for its gateway, whose status may name thousands of others. Used by state_store_proxy.cpp; any
// thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "egw/model/meta.hpp"

namespace egw::host {

class DocumentMemo {
 public:
  using Document = std::shared_ptr<const nlohmann::json>;
  using Parse = nlohmann::json (*)(std::string_view);

  // The document that `text` is; parsed unless the last one of that key was the same text. A
  // revision alone would not tell: a store that is put back from a copy gives it to something else.
  Document get(model::Kind kind, const model::Key& key, std::uint64_t revision,
               std::string_view text, Parse parse) {
    const std::size_t hash = std::hash<std::string_view>{}(text);
    const auto place = std::make_pair(kind, key);
    {
      const std::lock_guard lock(mutex_);
      const auto it = known_.find(place);
      if (it != known_.end() && it->second.revision == revision && it->second.hash == hash &&
          it->second.size == text.size()) {
        return it->second.document;
      }
    }
    Document document = std::make_shared<const nlohmann::json>(parse(text));
    if (text.size() < kWorthIt) return document;
    const std::lock_guard lock(mutex_);
    if (known_.size() >= kMost) known_.clear();
    known_[place] = {revision, hash, text.size(), document};
    return document;
  }

 private:
  static constexpr std::size_t kWorthIt = 2048;  // bytes; less is parsed as fast as it is looked up
  static constexpr std::size_t kMost = 64;       // documents
  struct Known {
    std::uint64_t revision = 0;
    std::size_t hash = 0, size = 0;
    Document document;
  };
  std::mutex mutex_;
  std::map<std::pair<model::Kind, model::Key>, Known> known_;
};

}  // namespace egw::host
