// Regular expressions on interface names, anchored at both ends
// (feature.announcedInterfacesToExclude). Used by the announcer.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "egw/model/result.hpp"

namespace egw::net {

class NamePatterns {
 public:
  NamePatterns();
  ~NamePatterns();
  // ECMAScript syntax. Error: the first one that does not parse.
  Result<void> set(const std::vector<std::string>& patterns);
  // One of them matches the whole name.
  [[nodiscard]] bool match(const std::string& name) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace egw::net
