// Starts the page.

state = stateOf(location.hash.slice(1));
startSummary();
startControls();
startGrid();
startClasses();
startLarge();
whenChanged(repaintWhereLookAlone);
if (innerWidth <= 700) document.querySelector(".look").open = false;
addEventListener("hashchange", readAddress);
