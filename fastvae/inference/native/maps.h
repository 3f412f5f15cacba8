// Feature maps [image, row, column, channel] with a border of one pixel, and reading and writing their pixels.
#pragma once

#include "lanes.h"

#include <cstddef>

namespace fastvae {

enum Activation { NONE = 0, LEAKY_RELU = 1, RELU = 2 };

struct Map {
    int height, width, channels;
    bool replicate;  // the border repeats the outermost pixels; else it is zero
    Element* values = nullptr;  // of `images`
    int images = 0;

    size_t row() const { return size_t(width + 2) * channels; }
    size_t image() const { return size_t(height + 2) * row(); }
    // Pixel (y, x) of an image; the border is at -1 and at height, width.
    Element* at(int image_index, int y, int x) {
        return values + image_index * image() + (y + 1) * row() + size_t(x + 1) * channels;
    }
};

inline Lanes activated(Lanes v, Activation activation, float slope) {
    if (activation == NONE) return v;
    return maximum(activation == RELU ? Lanes{} : v * slope, v);
}

// Writes up to OUTPUTS channels of one pixel, and of the border pixels that repeat it.
inline void put(Map& map, int image, int y, int x, int channel, int count, const Lanes (&v)[2]) {
    const int up = map.replicate && y == 0, down = map.replicate && y == map.height - 1;
    const int left = map.replicate && x == 0, right = map.replicate && x == map.width - 1;
    for (int dy = -up; dy <= down; dy++)
        for (int dx = -left; dx <= right; dx++) {
            Element* to = map.at(image, y + dy, x + dx) + channel;
            if (count == OUTPUTS) {
                store(to, v[0]);
                store(to + LANES, v[1]);
            } else {
                Element all[OUTPUTS];
                store(all, v[0]), store(all + LANES, v[1]);
                std::memcpy(to, all, sizeof(Element) * count);
            }
        }
}

inline void get(Map& map, int image, int y, int x, int channel, int count, Lanes (&v)[2]) {
    const Element* from = map.at(image, y, x) + channel;
    if (count == OUTPUTS) {
        v[0] = load(from);
        v[1] = load(from + LANES);
    } else {
        Element all[OUTPUTS] = {};
        std::memcpy(all, from, sizeof(Element) * count);
        v[0] = load(all), v[1] = load(all + LANES);
    }
}

}  // namespace fastvae
