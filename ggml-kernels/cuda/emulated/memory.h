// The card's memory. Every allocation lies before a page that can't be touched and after bytes that are looked at; its
// addresses are never used again. Fresh memory is NaN.
#pragma once
#include <cstddef>
#include <cstdint>

namespace emulated {

// Null where there isn't so much left.
void *allocate(std::size_t bytes);
bool release(void *p);
// Whether all these bytes belong to one allocation.
bool owns(const void *p, std::size_t bytes);
std::size_t memory_total();
std::size_t memory_free();
// Ends the process where something was written around an allocation; `since` names what ran.
void check_fences(const char *since);
// For a report: what lies at or near an address.
void describe(const void *p, char *text, std::size_t length);

// Page-locked memory of the host.
void *allocate_host(std::size_t bytes);
bool release_host(void *p);
bool host_owns(const void *p, std::size_t bytes);

}  // namespace emulated
