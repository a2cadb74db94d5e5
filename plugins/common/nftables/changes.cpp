#include "changes.hpp"

#include <algorithm>
#include <iterator>

namespace egw::common {

void difference(const SetSpec& spec, const Elements& have, const Elements& want, ElementChange& put,
                ElementChange& drop,
                const std::function<void(const std::string&, const std::string*,
                                         const std::string*)>& on_change) {
  put.set = drop.set = spec.name;
  put.verdict = drop.verdict = spec.verdict;
  auto h = have.begin();
  auto w = want.begin();
  while (h != have.end() || w != want.end()) {
    if (w == want.end() || (h != have.end() && h->first < w->first)) {
      drop.remove.push_back(*h);
      if (on_change) on_change(h->first, &h->second, nullptr);
      ++h;
    } else if (h == have.end() || w->first < h->first) {
      put.add.push_back(*w);
      if (on_change) on_change(w->first, nullptr, &w->second);
      ++w;
    } else {
      if (h->second != w->second) {
        put.remove.push_back(*h);
        put.add.push_back(*w);
        if (on_change) on_change(h->first, &h->second, &w->second);
      }
      ++h;
      ++w;
    }
  }
}

void keep(std::vector<ElementChange>& list, ElementChange change) {
  if (!change.add.empty() || !change.remove.empty()) list.push_back(std::move(change));
}

std::vector<TableChanges> portions(TableChanges changes, const std::string& last) {
  std::vector<TableChanges> early, late;
  TableChanges together;
  for (const Table t : kTables) {
    const auto i = static_cast<std::size_t>(t);
    for (ElementChange& c : changes[i]) {
      if (!c.remove.empty() || c.add.size() <= kPortion) {
        together[i].push_back(std::move(c));
        continue;
      }
      for (auto begin = c.add.begin(); begin != c.add.end();) {
        const auto left = static_cast<std::size_t>(c.add.end() - begin);
        const auto end = begin + static_cast<std::ptrdiff_t>(std::min(kPortion, left));
        TableChanges portion;
        portion[i].push_back({c.set, c.verdict, {}, Elements(begin, end)});
        (c.set == last ? late : early).push_back(std::move(portion));
        begin = end;
      }
    }
  }
  if (std::any_of(together.begin(), together.end(), [](const auto& c) { return !c.empty(); })) {
    early.push_back(std::move(together));
  }
  early.insert(early.end(), std::make_move_iterator(late.begin()),
               std::make_move_iterator(late.end()));
  return early;
}

}  // namespace egw::common
