#include "egw/host/elf_file.hpp"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "egw/abi/plugin.h"

namespace egw::host {
namespace {

constexpr std::uint64_t kMaxTable = 64U << 20U;  // bytes of one symbol or string table

class File {
 public:
  explicit File(const std::filesystem::path& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    struct stat st {};
    if (fd_ >= 0 && fstat(fd_, &st) == 0) size_ = static_cast<std::uint64_t>(st.st_size);
  }
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  [[nodiscard]] bool is_open() const { return fd_ >= 0; }
  [[nodiscard]] bool has(std::uint64_t offset, std::uint64_t length) const {
    return offset <= size_ && length <= size_ - offset;
  }
  bool read(std::uint64_t offset, void* out, std::size_t length) const {
    if (!has(offset, length)) return false;
    auto* at = static_cast<char*>(out);
    while (length > 0) {
      const ssize_t n = pread(fd_, at, length, static_cast<off_t>(offset));
      if (n <= 0) return false;
      at += n;
      offset += static_cast<std::uint64_t>(n);
      length -= static_cast<std::size_t>(n);
    }
    return true;
  }

 private:
  int fd_;
  std::uint64_t size_ = 0;
};

std::optional<Elf64_Ehdr> own_header() {
  const File self("/proc/self/exe");
  Elf64_Ehdr header{};
  if (!self.is_open() || !self.read(0, &header, sizeof(header))) return std::nullopt;
  return header;
}

std::string check_header(const File& file, Elf64_Ehdr& header) {
  unsigned char ident[EI_NIDENT] = {};
  if (!file.read(0, ident, sizeof(ident)) || std::memcmp(ident, ELFMAG, SELFMAG) != 0) {
    return "is no ELF file: put a plugin library in its place";
  }
  const auto own = own_header();
  if (ident[EI_CLASS] != ELFCLASS64) {
    return "is not a 64-bit library: build the plugin for this machine";
  }
  if (own && ident[EI_DATA] != own->e_ident[EI_DATA]) {
    return "has the byte order of another machine: build the plugin for this machine";
  }
  if (!file.read(0, &header, sizeof(header))) {
    return "is truncated in its ELF header: copy it again";
  }
  if (own && header.e_machine != own->e_machine) {
    return "is built for another machine (ELF machine " + std::to_string(header.e_machine) +
           ", this one is " + std::to_string(own->e_machine) +
           "): build the plugin for this machine";
  }
  if (header.e_type != ET_DYN) {
    return "is no shared library (ELF type " + std::to_string(header.e_type) +
           "): link the plugin with -shared";
  }
  return {};
}

std::string check_segments(const File& file, const Elf64_Ehdr& header) {
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0) {
    return "has no program headers: link the plugin again";
  }
  for (std::uint64_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment{};
    if (!file.read(header.e_phoff + i * sizeof(segment), &segment, sizeof(segment)) ||
        (segment.p_type == PT_LOAD && !file.has(segment.p_offset, segment.p_filesz))) {
      return "is truncated: copy it again";
    }
  }
  return {};
}

bool exports_entry(const std::vector<char>& symbols, const std::vector<char>& names) {
  for (std::size_t at = 0; at + sizeof(Elf64_Sym) <= symbols.size(); at += sizeof(Elf64_Sym)) {
    Elf64_Sym symbol{};
    std::memcpy(&symbol, symbols.data() + at, sizeof(symbol));
    const auto bind = ELF64_ST_BIND(symbol.st_info);
    if (symbol.st_shndx == SHN_UNDEF || (bind != STB_GLOBAL && bind != STB_WEAK) ||
        symbol.st_name >= names.size()) {
      continue;
    }
    const char* name = names.data() + symbol.st_name;
    const std::size_t rest = names.size() - symbol.st_name;
    if (rest >= sizeof(EGW_PLUGIN_ENTRY_SYMBOL) &&
        std::memcmp(name, EGW_PLUGIN_ENTRY_SYMBOL, sizeof(EGW_PLUGIN_ENTRY_SYMBOL)) == 0) {
      return true;
    }
  }
  return false;
}

std::string check_symbols(const File& file, const Elf64_Ehdr& header) {
  if (header.e_shentsize != sizeof(Elf64_Shdr)) {
    return "has no section headers: link the plugin again";
  }
  std::vector<Elf64_Shdr> sections(header.e_shnum);
  if (!file.read(header.e_shoff, sections.data(), sections.size() * sizeof(Elf64_Shdr))) {
    return "is truncated: copy it again";
  }
  for (const Elf64_Shdr& section : sections) {
    if (section.sh_type != SHT_DYNSYM || section.sh_link >= sections.size()) continue;
    const Elf64_Shdr& strings = sections[section.sh_link];
    if (section.sh_size > kMaxTable || strings.sh_size > kMaxTable) {
      return "has a symbol table of more than 64 MiB: link the plugin with hidden visibility";
    }
    std::vector<char> symbols(section.sh_size);
    std::vector<char> names(strings.sh_size);
    if (!file.read(section.sh_offset, symbols.data(), symbols.size()) ||
        !file.read(strings.sh_offset, names.data(), names.size())) {
      return "is truncated: copy it again";
    }
    if (exports_entry(symbols, names)) return {};
  }
  return "is no egw plugin: it does not export " EGW_PLUGIN_ENTRY_SYMBOL
         " (see docs/write-a-datapath.md)";
}

}  // namespace

std::string what_is_wrong_with_elf(const std::filesystem::path& path) {
  const File file(path);
  if (!file.is_open()) {
    return std::string("cannot be read: ") + std::strerror(errno);
  }
  Elf64_Ehdr header{};
  std::string wrong = check_header(file, header);
  if (wrong.empty()) wrong = check_segments(file, header);
  if (wrong.empty()) wrong = check_symbols(file, header);
  return wrong;
}

}  // namespace egw::host
