// Differences of elements, and how a big load is cut into transactions. Pure. Used by tables.cpp.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "nft.hpp"

namespace egw::common {

// Writes what turns `have` into `want`. on_change(key, had, wants): nullptr for absent.
void difference(const SetSpec& spec, const Elements& have, const Elements& want, ElementChange& put,
                ElementChange& drop,
                const std::function<void(const std::string&, const std::string*,
                                         const std::string*)>& on_change);

// Adds to the list what is not empty.
void keep(std::vector<ElementChange>& list, ElementChange change);

using TableChanges = std::array<std::vector<ElementChange>, 3>;  // of one transaction

// One transaction; but what is only added, in large number, goes in portions: `last` (the set of
// endpoints) after everything that it leads to.
[[nodiscard]] std::vector<TableChanges> portions(TableChanges changes, const std::string& last);
// Elements of a portion. When anybody on the machine listens to nftables, in whatever namespace,
// the kernel holds a page per element until the transaction ends.
inline constexpr std::size_t kPortion = 2000;

}  // namespace egw::common
