#include "text.hpp"

namespace egw::common {
namespace {

std::string range_text(const AddressRange& r) {
  // A single address must not be written as a range; the whole family must be written as a prefix.
  const sdk::Prefix all(r.first, 0);
  if (r.first == all.first() && r.last == all.last()) return all.text();
  return r.first == r.last ? r.first.text() : r.first.text() + "-" + r.last.text();
}

}  // namespace

std::string rule_comment(std::uint64_t fingerprint, std::size_t i, std::size_t n) {
  return "egw:" + hex(fingerprint, 16) + ":" + std::to_string(i) + "/" + std::to_string(n);
}

std::string place(Table t, const std::string& name, std::string_view table) {
  return std::string(keyword(t)) + " " + std::string(table) + " " + name;
}

std::string declare(Table t, const Chain& c, std::string_view table) {
  std::string out = "add chain " + place(t, c.name, table);
  if (c.hook) {
    out += " { type " + c.hook->type + " hook " + c.hook->hook;
    if (!c.hook->device.empty()) out += " device \"" + c.hook->device + "\"";
    out += " priority " + std::to_string(c.hook->priority) + "; policy accept; }";
  }
  return out + "\n";
}

std::string rules_text(Table t, const Chain& c, std::string_view table) {
  std::string out;
  const std::uint64_t fingerprint = c.fingerprint();
  for (std::size_t i = 0; i < c.rules.size(); ++i) {
    out += "add rule " + place(t, c.name, table) + " " + c.rules[i] + " comment \"" +
           rule_comment(fingerprint, i, c.rules.size()) + "\"\n";
  }
  return out;
}

std::string quoted(const std::string& s) { return '"' + s + '"'; }

std::string counted(const std::string& counter, const std::string& verdict) {
  return "counter name " + quoted(counter) + " " + verdict;
}

std::string elements_text(const AddressRanges& ranges) {
  std::string out = "{ ";
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    if (i != 0) out += ", ";
    out += range_text(ranges[i]);
  }
  return out + " }";
}

std::string declare(Table t, const SetSpec& s, std::string_view table) {
  return std::string("add ") + (s.map ? "map " : "set ") + place(t, s.name, table) + " { " +
         s.header + "; }\n";
}

}  // namespace egw::common
