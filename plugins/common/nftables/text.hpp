// Our objects in the words of nft: what tables.cpp puts its transactions together from. Pure.
#pragma once

#include <string>
#include <string_view>

#include "desired.hpp"
#include "ruleset.hpp"

namespace egw::common {

// "ip egw NAME"
[[nodiscard]] std::string place(Table t, const std::string& name, std::string_view table = kTable);
// "add chain ...", "add set ...", one "add rule ..." per rule with its comment; whole lines.
[[nodiscard]] std::string declare(Table t, const Chain& c, std::string_view table = kTable);
[[nodiscard]] std::string declare(Table t, const SetSpec& s, std::string_view table = kTable);
[[nodiscard]] std::string rules_text(Table t, const Chain& c, std::string_view table = kTable);
[[nodiscard]] std::string quoted(const std::string& s);
// "counter name ... VERDICT"
[[nodiscard]] std::string counted(const std::string& counter, const std::string& verdict);
// "{ a, b-c }"
[[nodiscard]] std::string elements_text(const AddressRanges& ranges);
// The comment of rule i of n: what a restarted agent recognises its own chains by.
[[nodiscard]] std::string rule_comment(std::uint64_t fingerprint, std::size_t i, std::size_t n);

}  // namespace egw::common
