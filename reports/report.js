// Sorting: a click on a heading orders the rows inside each group; a third click restores the ledger's order.
document.querySelectorAll("table.sortable").forEach(function (table) {
    var heads = Array.from(table.tHead.rows[0].cells);
    Array.from(table.tBodies).forEach(function (body) {
        Array.from(body.rows).forEach(function (row, i) { row.dataset.i = i; });
    });
    function key(row, column) {
        var at = 0, cell = null;
        for (var k = 0; k < row.cells.length && !cell; k++) {
            at += row.cells[k].colSpan;
            if (at > column) cell = row.cells[k];
        }
        return !cell ? "" : cell.dataset.v !== undefined ? parseFloat(cell.dataset.v) : cell.textContent.trim();
    }
    function compare(a, b) {
        var x = typeof a === "number", y = typeof b === "number";
        if (x && y) return a - b;
        if (x !== y) return x ? -1 : 1;
        return a < b ? -1 : a > b ? 1 : 0;
    }
    heads.forEach(function (head, column) {
        head.addEventListener("click", function () {
            var was = head.getAttribute("aria-sort");
            var now = was === "ascending" ? "descending" : was === "descending" ? null : "ascending";
            heads.forEach(function (h) { h.removeAttribute("aria-sort"); });
            if (now) head.setAttribute("aria-sort", now);
            Array.from(table.tBodies).forEach(function (body) {
                var rows = Array.from(body.rows).filter(function (r) { return !r.classList.contains("group"); });
                rows.sort(function (a, b) {
                    var c = now ? compare(key(a, column), key(b, column)) : 0;
                    return (now === "descending" ? -c : c) || a.dataset.i - b.dataset.i;
                });
                rows.forEach(function (r) { body.appendChild(r); });
            });
        });
    });
});
