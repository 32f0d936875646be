"""One dissection, from a network and labelled images to counts and the labels that follow from them.

``dissect`` reads as the method does. ``forward_pass`` puts a network on its device, examines it and reads the data;
``gather_pass`` and ``count_pass`` are the two loops over the images, ``gatherer`` and ``mask_counter`` what they fill,
and ``conclusion`` makes a dissection of it. ``begin`` makes what the loops share. ``saving``, ``saved_run``, ``resume``
and ``restore`` keep a run on the disk and go on from there; ``announce`` and ``publishing`` tell of it meanwhile.
"""
