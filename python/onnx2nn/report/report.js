// Draws the charts of the report, and gives their text the colour of the page's.
"use strict";
(async () => {
  const items = JSON.parse(document.getElementById("charts").textContent);
  const views = [];
  for (const [id, item] of Object.entries(items))
    if (document.getElementById(id)) views.push(await Bokeh.embed.embed_item(item, id));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => {
    const colour = getComputedStyle(document.body).getPropertyValue("--quiet").trim();
    for (const doc of Bokeh.documents)
      for (const model of doc._all_models.values()) {
        if (model.type.endsWith("Axis"))
          model.setv({ major_label_text_color: colour, axis_label_text_color: colour });
        if (model.type === "Legend") model.setv({ label_text_color: colour });
      }
  };
  paint();
  dark.addEventListener("change", paint);
  document.documentElement.dataset.drawn = String(views.length);
})();
