"use strict";
// Draws the charts of the page and colours them from its CSS variables, again when light turns dark.
(function () {
  const items = JSON.parse(document.getElementById("charts").textContent);

  function variable(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function paint(plot) {
    for (const axis of [...plot.below, ...plot.left]) {
      axis.major_label_text_color = variable("--quiet");
      axis.major_label_text_font = variable("--sans");
      axis.axis_label_text_color = variable("--quiet");
      axis.axis_label_text_font = variable("--sans");
      axis.axis_line_color = variable("--rule");
    }
    for (const part of plot.center) {
      if ("grid_line_color" in part) {
        part.grid_line_color = variable("--grid");
      }
    }
    for (const renderer of plot.renderers) {
      const color = variable(renderer.glyph.tags[0]);
      if ("text_color" in renderer.glyph) {
        renderer.glyph.text_color = color;
        renderer.glyph.text_font = variable("--sans");
        continue;
      }
      renderer.glyph.line_color = color;
      if ("fill_color" in renderer.glyph) {
        renderer.glyph.fill_color = color;
      }
    }
  }

  async function draw() {
    for (const item of items) {
      await Bokeh.embed.embed_item(item);
    }
    const plots = Bokeh.documents.flatMap((document) => document.roots());
    plots.forEach(paint);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach(paint));
  }

  Bokeh.set_log_level("warn");
  draw();
})();
